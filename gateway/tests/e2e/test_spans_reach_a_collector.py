"""With `traces.otlp_url` every request has a span, in its client's trace, at a collector that speaks OTLP; and nobody waits
for that collector."""

import json

import pytest
import requests

from collector import Collector
from house import Node, eventually
from provider import header
from wire import Connection, masked_frame

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
# A batch leaves every five seconds.
EXPORTED_SECONDS = 30
SERVER = 2
SECRET_PATH = "/api/contents/a-secret-name.ipynb"


@pytest.fixture(scope="module")
def collector():
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def node_settings(collector):
    return {
        "traces.otlp_url": collector.url,
        "log.format": "json",
        "log.filter": "info,runit_gateway=debug,runit_control=debug",
    }


@pytest.fixture
def session(node, provider):
    return node.register(provider.url)


def get(node, session, path, **headers):
    token = {"Authorization": f"Bearer {session['accessToken']}"}
    url = f"{node.session_url(session['sessionId'])}{path}"
    return requests.get(url, headers={**token, **headers}, timeout=20)


def exported(collector, wanted):
    return eventually(
        "a span has come",
        lambda: next((span for span in collector.spans() if wanted(span)), None),
        EXPORTED_SECONDS,
    )


def test_a_request_is_a_span_of_its_clients_trace_and_the_providers_parent(
    node, collector, provider, session
):
    answer = get(
        node,
        session,
        SECRET_PATH,
        traceparent=f"00-{TRACE}-{PARENT}-01",
        tracestate="rojo=1",
    )
    assert answer.status_code == 200
    told = header(provider.heads[-1], b"traceparent").decode()
    assert header(provider.heads[-1], b"tracestate") == b"rojo=1"

    span = exported(collector, lambda span: span.trace == TRACE)

    assert told == f"00-{TRACE}-{span.id}-01"
    assert span.parent == PARENT and span.kind == SERVER and not span.failed
    assert span.name == "GET" and span.moments == ["admitted", "provider answered"]
    assert span.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "runit.session.id": session["sessionId"],
    }
    assert span.resource["service.name"] == "runit-gateway"
    assert 0 < span.seconds < 20
    for secret in ["a-secret-name", session["accessToken"], "127.0.0.1", "rojo"]:
        assert not any(secret.encode() in body for body in collector.bodies), secret


def test_a_call_of_the_api_is_a_span_by_its_route_and_the_log_names_its_trace(
    node, collector, session
):
    token = {"Authorization": f"Bearer {session['accessToken']}"}
    usage = requests.get(f"{node.control_url}/renter/usage", headers=token, timeout=20)
    assert usage.status_code == 200

    span = exported(collector, lambda span: span.name == "GET /renter/usage")

    assert span.attributes["http.route"] == "/renter/usage"
    assert span.attributes["http.response.status_code"] == 200
    assert span.parent == ""
    eventually(
        "the log has its trace", lambda: span.trace in node.program.output(), 10
    )


def test_a_websocket_is_a_span_until_it_is_open(node, collector, session):
    connection = Connection(node, session["sessionId"], session["accessToken"])
    with connection.socket, connection.socket.makefile("rb") as stream:
        connection.upgrade()
        assert stream.readline().startswith(b"HTTP/1.1 101")
        while stream.readline() != b"\r\n":
            pass
        span = exported(
            collector,
            lambda span: span.attributes.get("http.response.status_code") == 101,
        )
        assert span.moments == ["admitted", "provider answered"] and not span.failed
        payload = b"still open" * 20
        connection.send(masked_frame(payload))
        assert stream.read(4 + len(payload)).endswith(payload)
    lines = [json.loads(line)["fields"] for line in node.program.output().splitlines()]
    (line,) = [line for line in lines if line.get("trace") == span.trace]
    assert (line["session"], line["status"]) == (session["sessionId"], 101)


def test_a_refusal_is_a_span_and_a_failure_an_error(node, collector):
    nowhere = f"{node.gateway_url}/s/none/lab"
    assert requests.get(nowhere, timeout=20).status_code == 404
    gone = node.register("http://127.0.0.1:9")
    assert get(node, gone, "/api/status").status_code == 502
    refused = exported(
        collector, lambda span: span.attributes.get("http.response.status_code") == 404
    )
    assert refused.moments == [] and not refused.failed
    failed = exported(
        collector,
        lambda span: span.attributes.get("runit.session.id") == gone["sessionId"],
    )
    assert failed.failed and failed.attributes["error.type"] == "ConnectError"


def test_an_answer_that_breaks_off_is_an_error_and_a_lock_that_ends_is_none(
    node, collector, session
):
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        get(node, session, "/breaks-off")
    broken = exported(
        collector,
        lambda span: span.attributes.get("runit.session.id") == session["sessionId"],
    )
    assert broken.failed and broken.attributes["http.response.status_code"] == 200
    assert broken.attributes["error.type"]

    token = {"Authorization": f"Bearer {session['accessToken']}"}
    url = f"{node.session_url(session['sessionId'])}/trickle"
    with requests.get(url, headers=token, stream=True, timeout=20) as answer:
        assert answer.status_code == 200
        node.release(session["accessToken"])
        cut = exported(
            collector, lambda span: span.attributes.get("error.type") == "released"
        )
    assert not cut.failed and cut.attributes["http.response.status_code"] == 200


def test_a_trace_that_its_client_does_not_record_passes_as_it_is(
    node, collector, provider, session
):
    unrecorded = "00000000000000000000000000000abc"
    traceparent = f"00-{unrecorded}-{PARENT}-00"
    get(node, session, "/api/status", traceparent=traceparent)
    assert header(provider.heads[-1], b"traceparent") == traceparent.encode()
    marker = "00000000000000000000000000000def"
    get(node, session, "/api/status", traceparent=f"00-{marker}-{PARENT}-01")
    exported(collector, lambda span: span.trace == marker)
    assert all(span.trace != unrecorded for span in collector.spans())


def test_nobody_waits_for_a_collector_and_a_node_that_stops_sends_the_last_spans(
    tmp_path, provider
):
    collector = Collector()
    collector.answers.clear()
    node = Node(tmp_path, {"traces.otlp_url": collector.url}).start()
    try:
        session = node.register(provider.url)
        eventually("it hangs", lambda: collector.asked, EXPORTED_SECONDS)
        for _ in range(20):
            assert get(node, session, "/api/status").status_code == 200
        assert collector.requests == [], "it has answered nothing yet"
        collector.answers.set()
        node.stop()
        spans = {
            span.id
            for span in collector.spans()
            if span.attributes.get("runit.session.id") == session["sessionId"]
        }
        assert len(spans) == 20
    finally:
        collector.close()
        node.stop()


def test_spans_that_nobody_takes_are_told_of_in_the_log(tmp_path, provider):
    node = Node(tmp_path, {"traces.otlp_url": "http://127.0.0.1:9"}).start()
    try:
        node.register(provider.url)
        eventually(
            "the log tells",
            lambda: "opentelemetry_sdk" in node.program.output(),
            EXPORTED_SECONDS,
        )
    finally:
        node.stop()
