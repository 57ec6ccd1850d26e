"""A session's cap holds to the byte, over many connections at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import wire
from house import eventually

CAP_BYTES = 5_000_000
CONNECTIONS = 24
SETTLE_SECONDS = 30


@pytest.fixture(scope="module")
def node_settings():
    return {"quota.cap_bytes": CAP_BYTES}


def in_parallel(calls):
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(*call) for call in calls]]


def settled_usage(node, token):
    """The count once the node has given its leases back: then all of the cap is known to be used."""

    def whole_cap():
        usage = node.usage(token)
        assert usage.total == CAP_BYTES, usage
        return usage

    return eventually("the count is the cap", whole_cap, SETTLE_SECONDS)


@pytest.mark.parametrize("run", range(20))
def test_downloads_alone_move_exactly_the_cap(node, provider, run):
    session = node.register(provider.url)
    provider.hold(CONNECTIONS)

    tallies = in_parallel(
        [(wire.download, node, session["sessionId"], session["accessToken"])]
        * CONNECTIONS
    )

    assert not any(tally.refused for tally in tallies), tallies
    assert sum(tally.sent + tally.received for tally in tallies) == CAP_BYTES
    usage = settled_usage(node, session["accessToken"])
    assert usage.bytes_in == sum(tally.sent for tally in tallies)
    assert usage.bytes_out == sum(tally.received for tally in tallies)
    assert usage.remaining == 0


def test_mixed_traffic_ends_at_exactly_the_cap_and_clients_got_no_more_than_was_counted(
    node, provider
):
    session = node.register(provider.url)
    provider.hold(CONNECTIONS)
    where = (node, session["sessionId"], session["accessToken"])
    waiting = (*where, provider.everybody_is_there)

    tallies = in_parallel(
        [
            (wire.download, *where),
            (wire.upload, *waiting),
            (wire.websocket_echo, *waiting),
        ]
        * (CONNECTIONS // 3)
    )

    usage = settled_usage(node, session["accessToken"])
    received = sum(tally.received for tally in tallies)
    assert 0 < received <= usage.bytes_out
    assert usage.bytes_in <= sum(tally.sent for tally in tallies) + CONNECTIONS * len(
        wire.BLOCK
    )


def test_a_session_over_its_cap_is_refused_and_told_when_to_come_back(node, provider):
    session = node.register(provider.url)
    where = (node, session["sessionId"], session["accessToken"])
    wire.download(*where)
    reached_before = len(provider.heads)

    refused = wire.Connection(*where)
    refused.head("GET", "/download", "Accept: application/json")
    answer = refused.answer_head()

    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nretry-after: " in answer.lower()
    assert len(provider.heads) == reached_before
    assert node.usage(session["accessToken"]).total == CAP_BYTES
