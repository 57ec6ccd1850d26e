"""Who gets in: the renter whose first use took the lock, from that address, and nobody else."""

import uuid

import pytest

import wire
from house import renter

ANOTHER_ADDRESS = "127.0.0.2"
MISMATCH = "IP mismatch - access denied"
IN_USE = "Session already in use"
UNKNOWN = "Invalid or expired token"


@pytest.fixture
def session(node, provider):
    return node.register(provider.url)


@pytest.fixture
def base(node, session):
    return node.session_url(session["sessionId"])


def open_link(node, token, address="127.0.0.1"):
    """A browser that follows the link: the client with what cookies it was given, and the answer."""
    client = renter(address=address)
    return client, client.get(
        f"{node.gateway_url}/access/{token}", allow_redirects=False
    )


def test_the_first_use_locks_the_session_and_leads_to_jupyterlab(
    node, session, provider
):
    browser, answer = open_link(node, session["accessToken"])

    assert answer.status_code == 302
    assert answer.headers["Location"].endswith(f"/s/{session['sessionId']}/lab")
    assert session["accessToken"] not in answer.headers["Location"]
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert browser.get(node.session_url(session["sessionId"]) + "/api").text == "ok"


def test_another_browser_with_the_same_link_is_told_that_it_is_in_use(node, session):
    open_link(node, session["accessToken"])

    _, answer = open_link(node, session["accessToken"])

    assert answer.status_code == 409
    assert IN_USE in answer.text


def test_the_same_browser_may_open_its_link_again(node, session):
    browser, _ = open_link(node, session["accessToken"])

    assert (
        browser.get(
            f"{node.gateway_url}/access/{session['accessToken']}", allow_redirects=False
        ).status_code
        == 302
    )


def test_another_address_is_refused_with_the_token_and_with_the_stolen_cookie(
    node, session, base, provider
):
    browser, _ = open_link(node, session["accessToken"])
    assert browser.get(f"{base}/api").status_code == 200
    reached_before = len(provider.heads)

    with_token = renter(session["accessToken"], ANOTHER_ADDRESS).get(f"{base}/api")
    with_query = renter(address=ANOTHER_ADDRESS).get(
        f"{base}/api", params={"token": session["accessToken"]}
    )
    thief = renter(address=ANOTHER_ADDRESS)
    thief.cookies.update(browser.cookies)
    with_cookie = thief.get(f"{base}/api")
    _, with_link = open_link(node, session["accessToken"], ANOTHER_ADDRESS)

    for answer in (with_token, with_query, with_cookie, with_link):
        assert answer.status_code == 403
        assert MISMATCH in answer.text
    assert len(provider.heads) == reached_before


def test_an_unknown_token_is_refused(node, session, base, provider):
    _, by_link = open_link(node, uuid.uuid4())
    by_header = renter(str(uuid.uuid4())).get(f"{base}/api")
    by_query = renter().get(f"{base}/api", params={"token": str(uuid.uuid4())})

    assert by_link.status_code == 403
    assert UNKNOWN in by_link.text
    assert (by_header.status_code, by_query.status_code) == (403, 403)
    assert provider.heads == []


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_without_a_token_nothing_reaches_the_provider(session, base, provider, method):
    answer = renter().request(
        method, f"{base}/api/kernels", data=b"{}", allow_redirects=False
    )

    assert answer.status_code in (401, 403)
    assert provider.heads == []


def test_a_websocket_without_a_token_does_not_reach_the_provider(
    node, session, provider
):
    socket = wire.Connection(node, session["sessionId"], str(uuid.uuid4()))
    socket.head(
        "GET",
        "/websocket",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )

    assert socket.answer_head().split(b" ")[1] in (b"401", b"403")
    assert provider.heads == []


def test_the_provider_sees_its_own_token_and_never_the_renters(node, provider):
    session = node.register(provider.url, token="the-registered-token")
    base = node.session_url(session["sessionId"])
    browser, _ = open_link(node, session["accessToken"])

    browser.get(f"{base}/api/contents?path=a%2Fb&token={session['accessToken']}&x=1")
    renter(session["accessToken"]).get(f"{base}/files/a%2Fb//c")

    with_query, with_header = provider.heads
    assert with_query.startswith(
        f"GET /s/{session['sessionId']}/api/contents?path=a%2Fb&x=1 HTTP/1.1\r\n".encode()
    )
    assert with_header.startswith(
        f"GET /s/{session['sessionId']}/files/a%2Fb//c HTTP/1.1\r\n".encode()
    )
    for head in (with_query, with_header):
        assert b"authorization: token the-registered-token\r\n" in head.lower()
        assert session["accessToken"].encode() not in head
        for cookie in browser.cookies:
            assert cookie.value.encode() not in head
