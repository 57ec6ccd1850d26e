"""Rentals under host names of their own, over TLS: what Chromium makes of the gateway's cookie, and of a WebSocket."""

import re
import socket
import ssl

import pytest
from playwright.sync_api import expect, sync_playwright

from authority import issue, pin
from conftest import CHROMIUM, CHROMIUM_FLAGS
from house import Node
from sites import Site

MAIN = "gateway.localhost"
SESSIONS = "notebooks.localhost"
# Browsers drop a cookie of more than 4096 bytes (RFC 6265bis, section 5.6).
COOKIE_BYTES = 3_900


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return issue(tmp_path_factory.mktemp("authority"), [MAIN, f"*.{SESSIONS}"])


@pytest.fixture(scope="module")
def node(tmp_path_factory, authority):
    node = Node(
        tmp_path_factory.mktemp("node"),
        {
            "gateway.sessions_host": SESSIONS,
            "gateway.tls": {
                "certificate": str(authority / "chain"),
                "key": str(authority / "key"),
            },
        },
    )
    node.gateway_url = f"https://{MAIN}:{node.address[1]}"
    node.settings["gateway.public_url"] = node.gateway_url
    try:
        yield node.start()
    finally:
        node.stop()


@pytest.fixture(scope="module")
def chromium(authority):
    """Takes this one key for good; that the names in its certificate fit is looked at by `expect_certified`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                *CHROMIUM_FLAGS,
                f"--ignore-certificate-errors-spki-list={pin(authority)}",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def hostile():
    site = Site()
    yield site
    site.close()


@pytest.fixture
def context(chromium):
    context = chromium.new_context()
    yield context
    context.close()


def enter(context, node, session_id):
    """A page in a new rental of the session, and the host name that it has for itself."""
    page = context.new_page()
    page.goto(node.request(session_id).link)
    own = rf"https://[a-z2-7]{{26}}\.{SESSIONS}:{node.address[1]}/s/{session_id}/lab"
    expect(page).to_have_url(re.compile(own))
    return page, page.evaluate("location.hostname")


def cookies_of(context, host):
    return [one for one in context.cookies() if one["domain"] == host]


def expect_certified(node, authority, host):
    trust = ssl.create_default_context(cafile=authority / "root")
    with socket.create_connection(node.address) as plain:
        trust.wrap_socket(plain, server_hostname=host).close()


def test_the_link_leads_there_and_no_script_and_no_other_host_has_the_cookie(node, authority, provider, context):
    session_id = node.register(provider.url)["sessionId"]
    page, host = enter(context, node, session_id)

    # The link's host knows by its own that the same browser opens the link again.
    assert {one["domain"] for one in context.cookies()} == {MAIN, host}
    for cookie in context.cookies():
        assert (cookie["name"], cookie["path"]) == (f"__Host-runit-{session_id}", "/")
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
    assert page.evaluate("[isSecureContext, document.cookie]") == [True, ""]
    for name in (MAIN, host):
        expect_certified(node, authority, name)


def test_a_websocket_works_there_and_not_from_a_rental_beside_it(node, provider, hostile, context):
    session_id = node.register(provider.url)["sessionId"]
    page, host = enter(context, node, session_id)
    beside, _ = enter(context, node, node.register(hostile.url)["sessionId"])
    url = f"wss://{host}:{node.address[1]}/s/{session_id}/websocket"
    echo = """url => new Promise((done) => {
        const socket = new WebSocket(url);
        socket.onopen = () => socket.send("hello");
        socket.onmessage = (event) => { done(event.data); socket.close(); };
        socket.onclose = () => done("closed");
    })"""

    assert page.evaluate(echo, url) == "hello"
    heads = len(provider.heads)
    assert beside.evaluate(echo, url) == "closed"
    assert len(provider.heads) == heads, "nothing of it reached the provider"
    assert b"__Host-" not in b"".join(provider.heads)


def test_a_page_neither_reads_nor_sets_the_cookie_of_a_rental_beside_it(node, provider, hostile, context):
    session_id = node.register(provider.url)["sessionId"]
    page, host = enter(context, node, session_id)
    (before,) = cookies_of(context, host)
    name = before["name"]
    variants = [
        f"{name}=tossed; Domain={SESSIONS}; Path=/; Secure",
        f"{name}=tossed; Domain={host}; Path=/; Secure",
        f"{name}=tossed; Path=/; Secure",
        f"{name}=tossed; Path=/s/{session_id}/; Secure",
        f"{name.lower()}=tossed; Domain={SESSIONS}; Path=/; Secure",
        f"={name}=tossed; Domain={SESSIONS}; Path=/; Secure",
        f"{name.removeprefix('__Host-')}=tossed; Domain={SESSIONS}; Path=/; Secure",
    ]
    hostile.pages["cookies"] = (
        [("Content-Type", "text/html"), *(("Set-Cookie", one) for one in variants)],
        b"set",
    )
    hostile_id = node.register(hostile.url)["sessionId"]
    beside, _ = enter(context, node, hostile_id)

    beside.goto(f"https://{beside.evaluate('location.host')}/s/{hostile_id}/cookies")
    assert "tossed" not in str(context.cookies())
    beside.evaluate("all => all.forEach(one => { document.cookie = one; })", variants)

    assert before["value"] not in beside.evaluate("document.cookie")
    assert cookies_of(context, host) == [before]
    provider.heads.clear()
    assert page.reload().status == 200, "what was tossed spoils nothing"
    seen = b"".join(provider.heads)
    assert seen and b"runit-" not in seen, "and no name of ours reaches the provider"
    assert page.evaluate("document.cookie.includes('__Host-runit-')") is False


def test_a_page_that_fills_its_sites_cookies_locks_the_renter_out_with_a_word_on_what_to_do(
    node, provider, hostile, context
):
    """Only a public suffix prevents it: a page may set cookies for the name above its own."""
    page, _ = enter(context, node, node.register(provider.url)["sessionId"])
    beside, _ = enter(context, node, node.register(hostile.url)["sessionId"])
    fill = """([host, length]) => {
        for (let at = 0; at < 12; at++) document.cookie = `c${at}=${"v".repeat(length)}; domain=${host}; path=/; secure`;
        return document.cookie.length;
    }"""
    # Browsers write in their own time, but read what they were told to write.
    assert beside.evaluate(fill, [SESSIONS, COOKIE_BYTES]) > 12 * COOKIE_BYTES

    assert page.reload().status == 431
    expect(page.locator("main")).to_contain_text("delete the cookies of this site")
