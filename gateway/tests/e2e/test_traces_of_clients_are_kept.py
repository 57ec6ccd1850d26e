"""A client's trace (W3C Trace Context) reaches the provider as it is, and the log of both planes names it."""

import json

import pytest
import requests

from house import eventually
from provider import header

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
FIELDS = {
    "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
    "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
}
LOGGED_SECONDS = 20


@pytest.fixture(scope="module")
def node_settings():
    return {"log.format": "json", "log.filter": "info,runit_gateway=debug,runit_control=debug"}


def lines_of_the_trace(node):
    """What the log says of the trace: the lines that name it, or are in a span that does."""
    lines = [json.loads(line) for line in node.program.output().splitlines()]
    return [
        line
        for line in lines
        if TRACE in (line["fields"].get("trace"), line.get("span", {}).get("trace"))
    ]


def test_a_trace_passes_the_gateway_and_is_in_the_log_of_both_planes(node, provider):
    session = node.register(provider.url)
    url = f"{node.session_url(session['sessionId'])}/api/status"
    token = {"Authorization": f"Bearer {session['accessToken']}"}
    answer = requests.get(url, headers={**token, **FIELDS}, timeout=20)
    assert answer.status_code == 200
    for name, value in FIELDS.items():
        assert header(provider.heads[-1], name.encode()) == value.encode()
    usage = requests.get(
        f"{node.control_url}/renter/usage", headers={**token, **FIELDS}, timeout=20
    )
    assert usage.status_code == 200

    def both():
        named = lines_of_the_trace(node)
        routes = [line["fields"].get("route") for line in named]
        passed = [line["fields"].get("session") for line in named]
        return "/renter/usage" in routes and session["sessionId"] in passed

    eventually("both planes have logged the trace", both, LOGGED_SECONDS)
    assert session["accessToken"] not in node.program.output()


def test_a_malformed_trace_is_no_part_of_the_log(node, provider):
    session = node.register(provider.url)
    url = f"{node.session_url(session['sessionId'])}/api/status"
    fields = {
        "Authorization": f"Bearer {session['accessToken']}",
        "traceparent": "00-a forged line-b-01",
    }
    assert requests.get(url, headers=fields, timeout=20).status_code == 200
    eventually(
        "the request is logged",
        lambda: session["sessionId"] in node.program.output(),
        LOGGED_SECONDS,
    )
    assert "forged" not in node.program.output()
