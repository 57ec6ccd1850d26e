"""A node whose statements are answered, and which hears of no change, would send renters to sessions that are others' by now."""

import re

import pytest
import requests

from house import Node, eventually
from postgres import Postgres

# A silence of 10 s, and the time to notice that the connection is gone.
NOTICED_SECONDS = 60


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    postgres = Postgres(tmp_path_factory.mktemp("postgres"))
    postgres.start()
    # No superuser, or no limit of connections would hold.
    postgres.statements("CREATE ROLE runit LOGIN")
    postgres.statements("GRANT ALL ON SCHEMA public TO runit")
    yield postgres
    postgres.stop()


@pytest.fixture(scope="module")
def node(tmp_path_factory, postgres):
    node = Node(tmp_path_factory.mktemp("node"), {"store.url": postgres.url.replace("postgres@", "runit@")})
    try:
        yield node.start()
    finally:
        node.stop()


def is_ready(node):
    return requests.get(f"{node.admin_url}/readyz", timeout=10).status_code == 200


def silence(node):
    metrics = requests.get(f"{node.admin_url}/metrics", timeout=10).text
    return float(re.search(r"^runit_store_silence_seconds (\S+)$", metrics, re.MULTILINE)[1])


def test_a_node_that_cannot_listen_is_not_ready_until_it_can(node, postgres):
    eventually("it is ready", lambda: is_ready(node), NOTICED_SECONDS)
    # What is connected stays so, and nothing more connects: not the one who listens either, once it is gone.
    postgres.statements("ALTER ROLE runit CONNECTION LIMIT 1")
    # The last that it said is LISTEN, or nothing as a sign of life.
    listener = "usename = 'runit' AND (query LIKE 'LISTEN%' OR query = '')"
    postgres.statements(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {listener}")
    # Two statements at once want a second connection, which is no readiness either.
    eventually("it says that it is not", lambda: silence(node) > 10 and not is_ready(node), NOTICED_SECONDS)
    assert node.register("https://calm-red-fox.trycloudflare.com"), "its statements are answered"
    postgres.statements("ALTER ROLE runit CONNECTION LIMIT -1")
    eventually("it is ready again", lambda: is_ready(node), NOTICED_SECONDS)
    assert silence(node) < 10
