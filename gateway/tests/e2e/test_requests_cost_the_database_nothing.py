"""What requests cost the database that nodes share: nothing by themselves.

Steady state: sessions are known to their nodes, and move bytes in every tick. The database then hears of *time* (a round of
reports for each tick and node, how each session stands every 2 s, presence every 5 s, sweeps) and of *bytes* (a lease each
time that half of the last one is spent). So the same sessions are used for the same time, once by as many requests as
there can be and once by few, and what the many made more is what requests cost. Leases are large enough here for none to
be spent in a test; what those of bytes cost is a calculation (`cargo run -p runit-bench-core --bin leases`).

`pg_stat_statements` counts at once; `pg_stat_database` would tell seconds later.
"""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import wire
from house import Node, eventually
from postgres import Postgres
from test_cap_is_exact_over_parallel_connections import in_parallel
from test_several_nodes_share_one_cap import registered, share_key

NODES = 3
CLIENTS_EACH = 2
REQUESTS_EACH = 3_000
# For a look at processor time, at all nodes together; several looks, of which the least counts.
REQUESTS_OF_A_LOOK = 6_000
LOOKS = 3
# A process that shares its work is woken more often for one request; if nodes asked one another or the database, a request
# would cost several times as much.
ALLOWED_RATIO = 2
# Twice in each tick of a node's, so that there is something to report in every one.
PAUSE_SECONDS = 0.2
IDLE_SECONDS = 5
LEASE_BYTES = 64 << 20
ANSWER = b"ok"
ALLOWED_PER_1000 = 1.0


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    postgres = Postgres(
        tmp_path_factory.mktemp("postgres"), settings=["shared_preload_libraries=pg_stat_statements"]
    )
    yield postgres.start()
    postgres.stop()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory, postgres):
    nodes = []
    unlimited = {"per_second": 1_000_000, "burst": 1_000_000}
    settings = {
        "store.url": postgres.url,
        "quota.lease_min_bytes": LEASE_BYTES,
        "quota.lease_max_bytes": LEASE_BYTES,
        "limits.requests_per_address": unlimited,
        "limits.requests_per_session": unlimited,
    }
    try:
        for number in range(NODES):
            folder = tmp_path_factory.mktemp(f"node{number}")
            node = Node(folder, settings)
            if nodes:
                share_key(nodes[0], node)
            nodes.append(node.start())
        yield nodes
    finally:
        for node in nodes:
            node.stop()


class Requests:
    """One connection that stays, and requests on it."""

    def __init__(self, node, session):
        self.connection = wire.Connection(node, session["sessionId"], session["accessToken"])
        self.stream = self.connection.socket.makefile("rb")

    def one(self):
        assert self.connection.head("GET", "/")
        head = b"".join(iter(self.stream.readline, b"\r\n"))
        assert head.startswith(b"HTTP/1.1 200 "), head
        assert self.stream.read(len(ANSWER)) == ANSWER

    def many(self, count=REQUESTS_EACH):
        for _ in range(count):
            self.one()
        return count

    def few(self, until):
        count = 0
        while not until.wait(PAUSE_SECONDS):
            self.one()
            count += 1
        return count


@dataclass
class Counted:
    seconds: float
    requests: int
    statements: int

    def __str__(self):
        rate = self.statements / self.seconds
        return f"{self.requests} requests in {self.seconds:.1f} s: {self.statements} statements, {rate:.1f}/s"


def statements(postgres):
    told = postgres.statements("SELECT sum(calls) FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'")
    return int(told)


def counted(postgres, work):
    before, began = statements(postgres), time.monotonic()
    requests = sum(work())
    seconds = time.monotonic() - began
    return Counted(seconds, requests, statements(postgres) - before)


def nobody():
    time.sleep(IDLE_SECONDS)
    return [0]


def few_for(seconds, clients):
    until = threading.Event()
    timer = threading.Timer(seconds, until.set)
    timer.start()
    return in_parallel([(client.few, until) for client in clients])


def processor_seconds(nodes):
    """What the scheduler gave to all threads of the nodes' processes."""
    nanoseconds = 0
    for node in nodes:
        for thread in Path(f"/proc/{node.program.pid}/task").glob("*/schedstat"):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                nanoseconds += int(thread.read_text().split()[0])
    return nanoseconds / 1e9


def test_a_request_costs_no_more_processor_time_on_more_nodes(nodes, provider):
    session = registered(nodes, provider)
    looks = {count: [] for count in range(1, NODES + 1)}
    for _ in range(LOOKS):
        for count, seconds in looks.items():
            clients = [Requests(node, session) for node in nodes[:count]]
            before = processor_seconds(nodes[:count])
            done = sum(in_parallel([(client.many, REQUESTS_OF_A_LOOK // count) for client in clients]))
            seconds.append((processor_seconds(nodes[:count]) - before) / done)
            for client in clients:
                client.connection.socket.close()
    costs = {count: min(seconds) for count, seconds in looks.items()}
    for count, seconds in costs.items():
        print(f"{count} nodes: {seconds * 1e6:.0f} us of processor time a request")
    assert costs[NODES] < ALLOWED_RATIO * costs[1], looks
    nodes[0].deregister(session)


def test_requests_of_a_steady_state_cost_less_than_a_statement_in_a_thousand(nodes, postgres, provider):
    postgres.statements("CREATE EXTENSION pg_stat_statements")
    sessions = [node.register(provider.url) for node in nodes]
    for node in nodes:
        eventually("all are known", lambda node=node: len(node.free_sessions()) == NODES, 20)
    clients = [
        Requests(node, session) for node, session in zip(nodes, sessions, strict=True) for _ in range(CLIENTS_EACH)
    ]
    idle = counted(postgres, nobody)
    for client in clients:
        client.one()
    many = counted(postgres, lambda: in_parallel([(client.many,) for client in clients]))
    few = counted(postgres, lambda: few_for(many.seconds, clients))
    for client in clients:
        client.connection.socket.close()

    beyond_time = many.statements - few.statements / few.seconds * many.seconds
    per_1000 = 1000 * beyond_time / (many.requests - few.requests)
    print(f"{NODES} nodes, {len(sessions)} sessions\nidle: {idle}\nmany: {many}\nfew: {few}")
    print(f"{per_1000:.2f} statements for each 1,000 requests beyond what time makes")
    print(f"{1000 * many.statements / many.requests:.2f} with what time makes")
    assert few.statements / few.seconds > idle.statements / idle.seconds, "sessions that move bytes are reported"
    assert per_1000 < ALLOWED_PER_1000
