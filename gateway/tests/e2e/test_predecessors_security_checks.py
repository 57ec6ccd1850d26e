"""The security checks that the predecessor was released with, against this house with its default limits."""

import pytest
import requests
from requests.adapters import HTTPAdapter

TUNNEL = "https://calm-red-fox.trycloudflare.com"


@pytest.fixture(scope="module")
def node_settings():
    return {
        "control.general_limit": {"requests": 100, "seconds": 900},
        "control.creation_limit": {"requests": 10, "seconds": 300},
        "control.heartbeat_limit": {"requests": 100, "seconds": 60},
    }


class From(requests.Session):
    """Somebody at one address of this machine, without cookies of earlier answers."""

    def __init__(self, address):
        super().__init__()
        adapter = HTTPAdapter()
        adapter.init_poolmanager(1, 1, source_address=(address, 0))
        self.mount("http://", adapter)

    def register(self, node, url=TUNNEL):
        body = {"providerId": "predecessor", "publicUrl": url, "token": "t"}
        return self.post(f"{node.control_url}/provider/session", json=body, timeout=10)


def access_link(node, address):
    asked = From(address).post(
        f"{node.control_url}/renter/request", json={}, timeout=10
    )
    assert asked.status_code == 200, asked.text
    return asked.json()


def opened(link, address):
    return From(address).get(link, allow_redirects=False, timeout=10)


def test_of_twelve_registrations_in_a_row_the_eleventh_is_refused(node):
    provider = From("127.0.0.10")
    assert [provider.register(node).status_code for _ in range(12)] == [200] * 10 + [
        429
    ] * 2


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example",
        "http://calm-red-fox.trycloudflare.com",
        "https://calm-red-fox.trycloudflare.com.evil.example",
        "https://evil.example/calm-red-fox.trycloudflare.com",
        "https://calm-red-fox.trycloudflare.com@evil.example",
        "https://169.254.169.254",
        "javascript:alert(1)",
        "",
    ],
)
def test_foreign_urls_are_refused(node, url):
    answer = From(f"127.0.1.{len(url) + 1}").register(node, url)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid public URL")


def test_the_first_access_is_let_in_and_the_second_is_told_that_it_is_in_use(node):
    assert From("127.0.0.11").register(node).status_code == 200
    given = access_link(node, "127.0.0.12")
    first = opened(given["url"], "127.0.0.12")
    assert first.status_code == 302
    assert first.headers["Location"] == f"/s/{given['sessionId']}/lab"
    second = opened(given["url"], "127.0.0.12")
    assert second.status_code == 409
    assert second.json()["error"] == "Session already in use"


def test_heartbeat_and_access_from_another_address_are_refused(node):
    assert From("127.0.0.13").register(node).status_code == 200
    given = access_link(node, "127.0.0.14")
    assert opened(given["url"], "127.0.0.14").status_code == 302
    heartbeat = f"{node.control_url}/renter/heartbeat/{given['accessToken']}"
    assert From("127.0.0.14").post(heartbeat, timeout=10).status_code == 200
    for answer in [
        From("127.0.0.15").post(heartbeat, timeout=10),
        opened(given["url"], "127.0.0.15"),
    ]:
        assert answer.status_code == 403
        assert answer.json()["error"] == "IP mismatch - access denied"
