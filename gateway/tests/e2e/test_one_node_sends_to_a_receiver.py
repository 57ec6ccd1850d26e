"""Of several nodes one sends to a webhook's receiver, and says how far that is behind, until another one does."""

import re
import signal

import pytest
import requests

from house import Node, eventually, free_ports
from postgres import Postgres
from test_several_nodes_share_one_cap import share_key

# A turn lasts 10 s after its node was last there.
TURN_SECONDS = 60


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    postgres = Postgres(tmp_path_factory.mktemp("postgres"))
    yield postgres.start()
    postgres.stop()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory, postgres):
    (nobody,) = free_ports(1)
    target = {
        "name": "ops",
        "url": f"http://127.0.0.1:{nobody}/hook",
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "kinds": ["NEW_PROVIDER_REGISTERED"],
    }
    settings = {
        "store.url": postgres.url,
        "webhooks.targets": [target],
        "webhooks.plain_http_hosts": ["127.0.0.1"],
        "webhooks.first_retry_ms": 1000,
    }
    nodes = []
    try:
        for number in range(2):
            node = Node(tmp_path_factory.mktemp(f"node{number}"), settings)
            if nodes:
                share_key(nodes[0], node)
            nodes.append(node.start())
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def lag(node):
    metrics = requests.get(f"{node.admin_url}/metrics", timeout=10).text
    (seconds,) = re.findall(r'^runit_webhook_lag_seconds\{receiver="ops"\} (\S+)$', metrics, re.MULTILINE) or ["0"]
    return float(seconds)


def test_a_node_that_does_not_send_any_more_shows_no_lag(nodes, provider):
    # The receiver begins with what happens after it was first seen.
    eventually("an event is not taken", lambda: nodes[0].register(provider.url) and max(map(lag, nodes)) > 0, TURN_SECONDS)
    sender, other = sorted(nodes, key=lag, reverse=True)
    assert lag(other) == 0
    sender.program.process.send_signal(signal.SIGSTOP)
    try:
        eventually("the other one sends", lambda: lag(other) > 0, TURN_SECONDS)
    finally:
        sender.program.process.send_signal(signal.SIGCONT)
    eventually("and it alone shows how far the receiver is behind", lambda: lag(sender) == 0, TURN_SECONDS)
    assert lag(other) > 0
