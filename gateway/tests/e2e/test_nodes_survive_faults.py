"""Three nodes with addresses of their own on one PostgreSQL, and what goes wrong with machines: a process is killed or stopped,
the database is killed, a network is cut. No byte passes beyond the cap, none goes uncounted, and no two renters hold a lock."""

import random
import shutil
import signal
import threading
import time

import pytest
import requests

import wire
from house import Node, eventually, renter
from lock_history import History, Operation
from postgres import Postgres
from provider import Provider
from test_cap_is_exact_over_parallel_connections import in_parallel
from test_several_nodes_share_one_cap import assert_a_release_ends_them_in_time, use_up_the_cap
from world import PROVIDER, RENTERS, World

CAP_BYTES = 24_000_000
# Short, so that a test can wait for the end of one; long enough for a busy machine to settle half of it in time.
LEASE_SECONDS = 6
# Longer than a lease lasts, and than the database's sign of life.
FAULT_SECONDS = LEASE_SECONDS + 2
# docs/SCALING.md: a lease, and 30 s in which the node hears of the database again.
BACK_SECONDS = LEASE_SECONDS + 30
STREAMS_EACH = 2
PORT = 8080


class RemoteNode(Node):
    """A node on a machine of its own."""

    def __init__(self, folder, machine, postgres):
        super().__init__(folder)
        self.machine = machine
        self.inside = machine.inside
        self.renters_address = RENTERS[0]
        self.address = (machine.address, PORT)
        self.gateway_url = f"http://{machine.address}:{PORT}"
        self.control_url = f"http://{machine.address}:{PORT + 1}"
        self.settings |= {
            "gateway.listen": f"{machine.address}:{PORT}",
            "gateway.public_url": self.gateway_url,
            "gateway.drain_seconds": 1,
            "control.listen": f"{machine.address}:{PORT + 1}",
            "control.public_url": self.control_url,
            "upstream.plain_http_hosts": [PROVIDER],
            "limits.guesses_per_address": {"requests": 1000000, "seconds": 1},
            "store.url": postgres.url_at(machine.database),
            "quota.cap_bytes": CAP_BYTES,
            "quota.lease_ttl_seconds": LEASE_SECONDS,
            "quota.renewal_wait_ms": 2_000,
        }


@pytest.fixture(scope="module")
def world():
    with World(machines=3) as world:
        yield world


@pytest.fixture(scope="module")
def postgres(world, tmp_path_factory):
    postgres = Postgres(
        tmp_path_factory.mktemp("postgres"), ["127.0.0.1", *(machine.database for machine in world.machines)]
    )
    yield postgres.start()
    postgres.stop()


@pytest.fixture(scope="module")
def nodes(world, tmp_path_factory, postgres):
    nodes = []
    try:
        for machine in world.machines:
            node = RemoteNode(tmp_path_factory.mktemp(f"node{machine.number}"), machine, postgres)
            if nodes:
                (node.folder / "control").mkdir(mode=0o700)
                shutil.copy(nodes[0].folder / "control" / "credential.key", node.folder / "control" / "credential.key")
            nodes.append(node.start())
        yield nodes
    finally:
        for node in nodes:
            node.stop()


@pytest.fixture
def provider(world):
    provider = Provider(PROVIDER)
    yield provider
    provider.close()


def registered(nodes, provider):
    session = nodes[0].register(provider.url)
    for node in nodes:
        eventually(
            "the session is known everywhere",
            lambda node=node: session["sessionId"] in node.free_sessions(),
            BACK_SECONDS,
        )
    return session


def rest_of_the_cap(nodes, session):
    """Takes what is left, through all nodes at once."""
    tallies = in_parallel(
        [(wire.download, node, session["sessionId"], session["accessToken"], RENTERS[0]) for node in nodes] * 2
    )
    return sum(tally.sent + tally.received for tally in tallies)


def test_nodes_with_addresses_of_their_own_give_exactly_the_cap(nodes, provider):
    session = registered(nodes, provider)
    provider.hold(6)
    assert rest_of_the_cap(nodes, session) == CAP_BYTES
    nodes[0].deregister(session)


@pytest.mark.parametrize("run", range(20))
def test_http_and_websockets_at_nodes_with_addresses_of_their_own_use_exactly_the_cap(nodes, provider, run):
    session = registered(nodes, provider)
    use_up_the_cap(nodes, provider, session, CAP_BYTES, nodes[run % 3], RENTERS[0])
    nodes[0].deregister(session)


def test_a_lock_holds_at_every_node_against_another_address(nodes, provider):
    session = registered(nodes, provider)

    def get(node, address):
        url = f"{node.gateway_url}/s/{session['sessionId']}/x"
        return renter(session["accessToken"], address).get(url, timeout=BACK_SECONDS)

    assert get(nodes[0], RENTERS[0]).status_code == 200
    for node in nodes:
        refused = get(node, RENTERS[1])
        assert refused.status_code == 403, refused.text
        assert get(node, RENTERS[0]).status_code == 200
    nodes[0].deregister(session)


def test_a_release_ends_idle_websockets_at_every_node(nodes, provider):
    assert_a_release_ends_them_in_time(nodes, provider, RENTERS[0])


def kill_a_node(nodes, _postgres):
    nodes[1].stop(signal.SIGKILL)
    yield
    nodes[1].start()


def kill_the_database(_nodes, postgres):
    postgres.kill()
    yield
    postgres.start()


def cut_a_node_off(nodes, _postgres):
    nodes[1].machine.cut_off()
    time.sleep(FAULT_SECONDS)
    yield
    nodes[1].machine.join()


def stop_a_node_beyond_its_leases(nodes, _postgres):
    nodes[1].program.process.send_signal(signal.SIGSTOP)
    time.sleep(FAULT_SECONDS)
    yield
    nodes[1].program.process.send_signal(signal.SIGCONT)


FAULTS = [kill_a_node, kill_the_database, cut_a_node_off, stop_a_node_beyond_its_leases]


class Stream(threading.Thread):
    """A slow download through one node, begun again for as long as it goes on."""

    def __init__(self, node, session):
        super().__init__(daemon=True)
        self.node = node
        self.session = session
        self.moved = 0
        self.ended = threading.Event()
        self.start()

    def run(self):
        while not self.ended.is_set():
            try:
                tally = wire.Connection(
                    self.node, self.session["sessionId"], self.session["accessToken"], RENTERS[0]
                )
                tally.head("GET", "/trickle")
                self.receive(tally)
            except OSError:
                time.sleep(0.05)

    def receive(self, connection):
        first = connection.socket.recv(1 << 16)
        # What the gateway says in its own name is not charged.
        if not first.startswith(b"HTTP/1.1 200 "):
            time.sleep(0.05)
            return
        self.moved += connection.tally.sent + len(first)
        with connection.socket:
            while chunk := connection.socket.recv(1 << 16):
                self.moved += len(chunk)
                if self.ended.is_set():
                    return

    def finish(self):
        self.ended.set()
        self.join(wire.READ_SECONDS)
        return self.moved


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_under_load_costs_no_byte_too_many_and_hides_none(nodes, postgres, provider, fault):
    session = registered(nodes, provider)
    streams = [Stream(node, session) for node in nodes for _ in range(STREAMS_EACH)]
    eventually("all streams move", lambda: all(stream.moved > 100_000 for stream in streams), 60)

    happening = fault(nodes, postgres)
    next(happening)
    next(happening, None)
    healed = time.monotonic()
    url = f"{nodes[1].gateway_url}/s/{session['sessionId']}/x"
    client = renter(session["accessToken"], RENTERS[0])
    eventually(
        "the node serves again", lambda: client.get(url, timeout=5).status_code in (200, 429), BACK_SECONDS
    )
    print(f"{fault.__name__}: served again {time.monotonic() - healed:.1f} s after its end")

    moved = sum(stream.finish() for stream in streams) + rest_of_the_cap(nodes, session)
    assert moved <= CAP_BYTES, "more than the cap has passed"
    print(f"{fault.__name__}: {moved} bytes moved, {CAP_BYTES - moved} were charged besides")

    def all_is_counted():
        usage = nodes[2].usage(session["accessToken"])
        assert usage.remaining <= CAP_BYTES - moved, f"{usage} is less than the {moved} bytes that moved"
        return True

    eventually("the ledger has all of it", all_is_counted, BACK_SECONDS)
    nodes[0].deregister(session)


def test_a_node_that_is_cut_off_decides_nothing(nodes, provider):
    session = registered(nodes, provider)
    cut_off = nodes[1]
    client = renter(session["accessToken"], RENTERS[0])
    offer = {"providerId": "e2e", "publicUrl": provider.url, "token": "t"}

    def heartbeat():
        return requests.post(
            f"{cut_off.control_url}/provider/heartbeat",
            json={"sessionId": session["sessionId"]},
            headers={"Authorization": f"Bearer {session['providerSecret']}"},
            timeout=60,
        ).status_code

    cut_off.machine.cut_off()
    try:
        claim = client.get(f"{cut_off.gateway_url}/s/{session['sessionId']}/x", timeout=60)
        assert claim.status_code == 503, claim.text
        registration = requests.post(f"{cut_off.control_url}/provider/session", json=offer, timeout=60)
        assert registration.status_code == 503, registration.text
        eventually("heartbeats are for another node", lambda: heartbeat() == 503, BACK_SECONDS)
    finally:
        cut_off.machine.join()
    eventually("heartbeats are heard again", lambda: heartbeat() == 200, BACK_SECONDS)
    nodes[0].deregister(session)


def test_a_history_with_two_holders_is_found_out():
    history = History()
    history.operations = [Operation("claim", "a", 0, 1), Operation("release", "a", 5, 6), Operation("claim", "b", 2, 3)]
    assert "a and b both hold" in history.violations()[0]
    history.operations[2] = Operation("claim", "b", 2, 5.5)
    assert history.violations() == [], "the claim may have waited for the release"
    history.operations.append(Operation("use", "a", 7, 8))
    assert "a was served" in history.violations()[0]


class Contender(threading.Thread):
    """A renter who takes the session, uses it through any node, and gives it back, again and again."""

    def __init__(self, nodes, session_id, address, history, over, begins=True):
        super().__init__(daemon=True)
        self.nodes = nodes
        self.session_id = session_id
        self.address = address
        self.history = history
        self.over = over
        self.held = 0
        if begins:
            self.start()

    def run(self):
        while not self.over.is_set():
            token = self.ask(lambda node, client: self.token(node, client))
            if token and self.insist("claim", token):
                self.held += 1
                for _ in range(3):
                    self.history.record("use", token, lambda token=token: self.get(token) == 200)
                self.insist("release", token)
                # He goes on asking, which must not be served any more once somebody else is.
                for _ in range(3):
                    self.history.record("use", token, lambda token=token: self.get(token) == 200)

    def ask(self, question):
        """Any node's answer; none when it gave none."""
        try:
            with renter(address=self.address) as client:
                return question(random.choice(self.nodes), client)
        except requests.RequestException:
            time.sleep(0.02)
            return None

    def token(self, node, client):
        answer = client.post(
            f"{node.control_url}/renter/request", json={"sessionId": self.session_id}, timeout=10
        )
        time.sleep(0.02)
        return answer.json()["accessToken"] if answer.status_code == 200 else None

    def get(self, token):
        def question(node, client):
            url = f"{node.gateway_url}/s/{self.session_id}/x"
            return client.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10).status_code

        return self.ask(question)

    def release(self, token):
        def question(node, client):
            return client.post(f"{node.control_url}/renter/release/{token}", timeout=10).status_code

        return self.ask(question)

    def insist(self, kind, token):
        """Until it is decided: an answer that was lost does not say that nothing was done."""

        def decided():
            asked = self.get if kind == "claim" else self.release
            while (status := asked(token)) not in (200, 403, 404):
                time.sleep(0.02)
            # A release whose first answer was lost finds nothing to release.
            return status == 200 or kind == "release"

        return self.history.record(kind, token, decided)


def keep_fresh(nodes, session, provider, over):
    """The provider's part: a fresh workspace after each renter."""
    authorization = {"Authorization": f"Bearer {session['providerSecret']}"}
    workspace = 0
    while not over.is_set():
        for node in nodes:
            url = f"{node.control_url}/provider/session/{session['sessionId']}"
            try:
                status = requests.get(url, headers=authorization, timeout=10).json().get("status")
                if status == "RECYCLING":
                    workspace += 1
                    fresh = {"publicUrl": provider.url, "token": f"workspace-{workspace}"}
                    requests.put(f"{url}/tunnel", json=fresh, headers=authorization, timeout=10)
            except requests.RequestException:
                continue
        time.sleep(0.02)


def test_a_node_that_hears_of_no_release_serves_nobody_beside_the_next_renter(nodes, provider):
    session = registered(nodes, provider)
    history, over = History(), threading.Event()
    fresh = threading.Thread(target=keep_fresh, args=(nodes[::2], session, provider, over), daemon=True)
    fresh.start()
    first, cut_off = session["accessToken"], nodes[1]
    last = Contender([cut_off], session["sessionId"], RENTERS[1], history, over, begins=False)
    assert last.insist("claim", first)
    cut_off.machine.cut_off()
    try:
        Contender(nodes[:1], session["sessionId"], RENTERS[1], history, over, begins=False).insist("release", first)
        asking = threading.Thread(
            target=lambda: [history.record("use", first, lambda: last.get(first) == 200) for _ in range(200)], daemon=True
        )
        asking.start()
        following = Contender(nodes[::2], session["sessionId"], RENTERS[2], history, over)
        eventually("the next renter has his turns", lambda: following.held >= 2, 2 * BACK_SECONDS)
    finally:
        over.set()
        cut_off.machine.join()
    for thread in [fresh, following, asking]:
        thread.join(120)
        assert not thread.is_alive()
    served = [one for one in history.operations if one.kind == "use" and one.token == first]
    assert served, "the node that was cut off did not serve on, so that this has shown nothing"
    assert history.violations() == []
    nodes[0].deregister(session)


def test_no_two_renters_hold_a_lock_whatever_fails(nodes, postgres, provider):
    session = registered(nodes, provider)
    history, over = History(), threading.Event()
    contenders = [Contender(nodes, session["sessionId"], address, history, over) for address in RENTERS[1:5]]
    fresh = threading.Thread(target=keep_fresh, args=(nodes, session, provider, over), daemon=True)
    fresh.start()

    def rounds(more):
        before = sum(contender.held for contender in contenders)
        eventually(
            "renters take turns", lambda: sum(one.held for one in contenders) >= before + more, 2 * BACK_SECONDS
        )

    try:
        for fault in FAULTS:
            rounds(3)
            happening = fault(nodes, postgres)
            next(happening)
            next(happening, None)
        rounds(3)
    finally:
        over.set()
    for thread in [*contenders, fresh]:
        thread.join(60)
        assert not thread.is_alive()
    assert history.violations() == []
    print(f"{len(history.operations)} operations, {sum(one.held for one in contenders)} locks")
    nodes[0].deregister(session)
