"""A fleet is replaced node by node while a thousand WebSockets are open at all of them."""

import pytest

from house import PROGRAMS, Node, Program
from postgres import Postgres
from test_several_nodes_share_one_cap import ends, registered, share_key, websocket

WEBSOCKETS = 1_002
SECONDS = 60
# A masked text frame (with a mask of zeros), and its echo: RFC 6455, section 5.2.
PING, PONG = b"\x81\x84\0\0\0\0ping", b"\x81\x04ping"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    postgres = Postgres(tmp_path_factory.mktemp("postgres")).start()
    roomy = ["connections_per_address", "connections_per_session", "websockets_per_session"]
    settings = {"store.url": postgres.url, **{f"limits.{key}": 2 * WEBSOCKETS for key in roomy}}
    nodes = []
    try:
        for number in range(3):
            node = Node(tmp_path_factory.mktemp(f"node{number}"), settings)
            if nodes:
                share_key(nodes[0], node)
            nodes.append(node.start())
        yield nodes
    finally:
        for node in nodes:
            node.stop()
        postgres.stop()


def test_no_websocket_is_dropped_and_a_release_still_ends_them_all(nodes, provider):
    session = registered(nodes, provider)
    token, path = session["accessToken"], f"/s/{session['sessionId']}/websocket"
    sockets = [websocket(nodes[number % 3], path, token) for number in range(WEBSOCKETS)]
    retired = []
    for node in nodes:
        retired.append(upgraded(node))
        assert sum(not echoes(one) for one in sockets) == 0
    assert all(one.process.poll() is None for one in retired), "each has WebSockets to carry"
    nodes[0].release(token)
    assert sum(not ends(one) for one in sockets) == 0
    assert [one.process.wait(SECONDS) for one in retired] == [0] * 3
    nodes[0].deregister(session)


def upgraded(node):
    """Has another process take over from the node's, which is given back."""
    before = node.program
    command = [PROGRAMS / "runit-gateway", "--config", node.folder / "runit.toml", "--upgrade"]
    node.program = Program("successor", node.folder, command)
    node.program.wait_until("it has taken over", lambda: "started" in node.program.output(), SECONDS)
    return before


def echoes(connection):
    connection.sendall(PING)
    answer = b""
    while len(answer) < len(PONG):
        some = connection.recv(len(PONG) - len(answer))
        if not some:
            return False
        answer += some
    return answer == PONG
