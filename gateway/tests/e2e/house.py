"""The real programs, as a test sees them: a node (gateway and control API), an agent with its container, a renter.

Every program is started with settings of its own, in a folder of its own, on free ports, and ended by its process id.
Nothing here sleeps and hopes: `eventually` waits for a condition and tells the last state when its time is up.
"""

import errno
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"

START_SECONDS = 30
CONTAINER_SECONDS = 120
STOP_SECONDS = 45
HTTP_SECONDS = 60
LOG_TAIL_CHARS = 6000

running = []


def eventually(what, probe, seconds):
    """The first true answer of `probe`; a failed assertion or a refused connection inside it is a "not yet"."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            last = probe()
            if last:
                return last
        except (AssertionError, requests.ConnectionError, OSError) as error:
            last = error
        assert time.monotonic() < deadline, (
            f"{what}: not within {seconds} s; last: {last!r}"
        )
        time.sleep(0.05)


def free_ports(count):
    """Below those that the kernel gives to connections (ip_local_port_range)."""
    reserved = [free_port() for _ in range(count)]
    ports = [one.getsockname()[1] for one in reserved]
    for one in reserved:
        one.close()
    return ports


def free_port():
    while True:
        try:
            return socket.create_server(("127.0.0.1", random.randrange(10_000, 30_000)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


def docker(*arguments):
    done = subprocess.run(
        ["docker", *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout


class Program:
    """One process and its log."""

    def __init__(self, name, folder, command, environment=None):
        self.name = name
        self.log = folder / f"{name}.log"
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("RUNIT_")
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**inherited, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running.append(self)

    @property
    def pid(self):
        return self.process.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def last_words(self):
        lines = [
            line
            for line in self.output().splitlines()
            if "heartbeat updated" not in line
        ]
        return "\n".join(lines)[-LOG_TAIL_CHARS:]

    def wait_until(self, what, probe, seconds):
        """`eventually`, but a program that ended is not waited for."""

        def alive_and_ready():
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"{self.name} ended with {self.process.returncode}:\n{self.last_words()}"
                )
            return probe()

        return eventually(what, alive_and_ready, seconds)

    def stop(self, how=signal.SIGTERM):
        if self in running:
            running.remove(self)
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"{self.name} did not end within {STOP_SECONDS} s of {how!r}"
            ) from None


def toml(settings):
    """`{"section.key": value}` as a settings file."""

    def text(value):
        if isinstance(value, dict):
            return (
                "{ "
                + ", ".join(f"{key} = {text(one)}" for key, one in value.items())
                + " }"
            )
        if isinstance(value, list):
            return "[" + ", ".join(text(one) for one in value) + "]"
        return json.dumps(value)

    sections = {}
    for path, value in settings.items():
        section, key = path.split(".")
        sections.setdefault(section, []).append(f"{key} = {text(value)}")
    return "\n".join(
        f"[{section}]\n" + "\n".join(lines) + "\n"
        for section, lines in sections.items()
    )


@dataclass(frozen=True)
class Access:
    """What a renter is given."""

    session_id: str
    token: str
    link: str


@dataclass(frozen=True)
class Usage:
    bytes_in: int
    bytes_out: int
    cap: int
    remaining: int

    @property
    def total(self):
        return self.bytes_in + self.bytes_out


class Node:
    """runit-gateway: the data plane and the control API in one process, with its store in `folder`."""

    def __init__(self, folder, settings=None):
        self.folder = folder
        gateway, control, admin = free_ports(3)
        self.address = ("127.0.0.1", gateway)
        self.gateway_url = f"http://127.0.0.1:{gateway}"
        self.control_url = f"http://127.0.0.1:{control}"
        self.admin_url = f"http://127.0.0.1:{admin}"
        # Tests call the API far more often than a renter does; the limits have tests of their own.
        unlimited = {"requests": 1000000, "seconds": 1}
        self.settings = {
            "gateway.listen": f"127.0.0.1:{gateway}",
            "gateway.public_url": self.gateway_url,
            "gateway.admin_listen": f"127.0.0.1:{admin}",
            "upstream.plain_http_hosts": ["127.0.0.1"],
            "control.listen": f"127.0.0.1:{control}",
            "control.public_url": self.control_url,
            "control.data_dir": str(folder / "control"),
            "control.general_limit": unlimited,
            "control.creation_limit": unlimited,
            "control.heartbeat_limit": unlimited,
            **(settings or {}),
        }
        self.program = None
        # What makes it start somewhere else, and where its renter is.
        self.inside = []
        self.renters_address = "127.0.0.1"

    def start(self):
        config = self.folder / "runit.toml"
        config.write_text(toml(self.settings))
        self.program = Program(
            "runit-gateway",
            self.folder,
            [*self.inside, PROGRAMS / "runit-gateway", "--config", config],
        )
        self.program.wait_until("control API answers", self.is_up, START_SECONDS)
        return self

    def is_up(self):
        socket.create_connection(self.address, timeout=1).close()
        return requests.get(f"{self.control_url}/", timeout=5).status_code == 200

    def stop(self, how=signal.SIGTERM):
        return self.program.stop(how)

    def session_url(self, session_id):
        return f"{self.gateway_url}/s/{session_id}"

    def request(self, session_id=None):
        """Asks for a session, as the renter's page does."""
        body = {"sessionId": session_id} if session_id else {}
        answer = requests.post(
            f"{self.control_url}/renter/request", json=body, timeout=HTTP_SECONDS
        )
        assert answer.status_code == 200, answer.text
        given = answer.json()
        return Access(given["sessionId"], given["accessToken"], given["url"])

    def register(self, public_url, token="upstream-token", **offer):
        """A session of a provider that has no agent."""
        answer = requests.post(
            f"{self.control_url}/provider/session",
            json={
                "providerId": "e2e",
                "publicUrl": public_url,
                "token": token,
                **offer,
            },
            timeout=HTTP_SECONDS,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def deregister(self, session):
        """Takes a session that `register` gave away again; one that is gone already is fine."""
        answer = requests.delete(
            f"{self.control_url}/provider/session/{session['sessionId']}",
            headers={"Authorization": f"Bearer {session['providerSecret']}"},
            timeout=HTTP_SECONDS,
        )
        assert answer.status_code in (204, 404), answer.text

    def free_sessions(self):
        return [
            one["sessionId"]
            for one in requests.get(
                f"{self.control_url}/renter/sessions", timeout=5
            ).json()
        ]

    def usage(self, token):
        answer = renter(token, self.renters_address).get(
            f"{self.control_url}/renter/usage", timeout=HTTP_SECONDS
        )
        assert answer.status_code == 200, answer.text
        told = answer.json()
        return Usage(told["usedIn"], told["usedOut"], told["cap"], told["remaining"])

    def release(self, token):
        answer = requests.post(
            f"{self.control_url}/renter/release/{token}", timeout=HTTP_SECONDS
        )
        assert answer.status_code == 200, answer.text


class Agent:
    """runit-agent with a direct tunnel: gate, container and Jupyter are real."""

    def __init__(self, folder, control_url, container):
        self.folder = folder
        self.container = container
        self.settings = {
            "agent.provider_id": "e2e",
            "agent.control_url": control_url,
            "agent.state_dir": str(folder / "agent"),
            "agent.heartbeat_seconds": 1,
            "tunnel.kind": "direct",
            "container.name": container,
        }
        self.program = None

    def start(self):
        config = self.folder / "agent.toml"
        config.write_text(toml(self.settings))
        self.program = Program(
            "runit-agent", self.folder, [PROGRAMS / "runit-agent", "--config", config]
        )
        self.program.wait_until(
            "session registered", self.registrations, CONTAINER_SECONDS
        )
        return self

    def stop(self):
        """Ends the agent; what it leaves behind is removed, and a failure."""
        try:
            status = self.program.stop()
        finally:
            left = self.left_behind()
            for kind, name in left:
                docker(kind, "rm", *([] if kind == "network" else ["--force"]), name)
        assert left == [], f"the agent left behind {left}"
        assert status == 0, f"the agent ended with {status}"

    def left_behind(self):
        label = f"label=io.runit.instance={(self.folder / 'agent').resolve()}"
        containers = docker(
            "container", "ls", "--all", "--quiet", "--filter", label
        ).split()
        volumes = docker("volume", "ls", "--quiet", "--filter", label).split()
        networks = docker("network", "ls", "--quiet", "--filter", label).split()
        return (
            [("container", one) for one in containers]
            + [("volume", one) for one in volumes]
            + [("network", one) for one in networks]
        )

    def registrations(self):
        return re.findall(r"\[agent\] session registered: (\S+)", self.program.output())

    @property
    def session_id(self):
        return self.state()["sessionId"]

    @property
    def gate_url(self):
        return re.findall(
            r"\[agent\] detected public URL: (\S+)", self.program.output()
        )[-1]

    def state(self):
        return json.loads((self.folder / "agent" / "session.json").read_text())

    def inspect(self):
        return json.loads(docker("inspect", self.container))[0]

    def jupyter_token(self):
        environment = dict(one.split("=", 1) for one in self.inspect()["Config"]["Env"])
        return environment["RUNIT_JUPYTER_TOKEN"]

    def status(self, node):
        return self.told(node)["status"]

    def told(self, node):
        """What control knows of the session."""
        answer = requests.get(
            f"{node.control_url}/provider/session/{self.session_id}",
            headers={"Authorization": f"Bearer {self.state()['providerSecret']}"},
            timeout=HTTP_SECONDS,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()


class Heart:
    """Heartbeats of a provider that has no agent, until it is stopped; a node that is down is tried again."""

    def __init__(self, node, session, report=None):
        self.node = node
        self.session = session
        self.report = report
        self.session_id = session["sessionId"]
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.beat, daemon=True)
        self.thread.start()

    def beat(self):
        while not self.stopped.wait(1):
            try:
                requests.post(
                    f"{self.node.control_url}/provider/heartbeat",
                    json={"sessionId": self.session_id, "report": self.report},
                    headers={
                        "Authorization": f"Bearer {self.session['providerSecret']}"
                    },
                    timeout=HTTP_SECONDS,
                )
            except requests.ConnectionError:
                pass

    def stop(self):
        self.stopped.set()
        self.thread.join()


class ControlTap:
    """Stands between a client and the control API, passes everything on, and remembers what the client sent.

    `source` is the address that control sees it come from.
    """

    def __init__(self, control_url):
        self.target = ("127.0.0.1", int(control_url.rsplit(":", 1)[1]))
        self.source = "127.0.0.1"
        self.sent = bytearray()
        self.open = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                agent, _ = self.listener.accept()
            except OSError:
                return
            try:
                control = socket.create_connection(
                    self.target, source_address=(self.source, 0)
                )
            except OSError:
                agent.close()
                continue
            self.open += [agent, control]
            threading.Thread(
                target=self.copy, args=(agent, control, self.sent), daemon=True
            ).start()
            threading.Thread(
                target=self.copy, args=(control, agent, None), daemon=True
            ).start()

    @staticmethod
    def copy(source, sink, record):
        try:
            while chunk := source.recv(65536):
                if record is not None:
                    record.extend(chunk)
                sink.sendall(chunk)
        except OSError:
            pass
        finally:
            for one in (source, sink):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def move_to(self, source):
        """From now on everything comes from there; what was open ends."""
        self.source = source
        for one in self.open:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already
        self.open.clear()

    def gate_tokens(self):
        return re.findall(
            r'"token"\s*:\s*"([^"]+)"', self.sent.decode(errors="replace")
        )

    def close(self):
        self.listener.close()


class FromAddress(HTTPAdapter):
    """Connects from the given source address."""

    def __init__(self, address):
        self.address = address
        super().__init__()

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, source_address=(self.address, 0), **kwargs)


def renter(token=None, address="127.0.0.1"):
    """An HTTP client of a renter's, from `address`, with the token if there is one."""
    client = requests.Session()
    client.trust_env = False
    client.mount("http://", FromAddress(address))
    if token:
        client.headers["Authorization"] = f"Bearer {token}"
    return client
