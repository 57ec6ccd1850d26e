"""A PostgreSQL server of a test's own: made with `initdb` in a folder of its own, on a free port, ended with the test."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from house import eventually

# The server refuses to run as root: Debian's package brings this user.
USER = "postgres"
START_SECONDS = 60


def program(name):
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found, f"there is no {name}: install Debian's postgresql"
    return str(found[-1])


def lasting_port():
    """A free port that stays free while the server is down: below those that the system gives to clients, one of which might
    even connect to itself when it asks for a server that is not there."""
    for port in random.sample(range(20_000, 32_000), 100):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no free port from 20000 to 31999")


def is_alive(pid):
    try:
        # The state comes after the name, which is in parentheses.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Postgres:
    def __init__(self, folder, addresses=("127.0.0.1",), settings=()):
        self.folder = folder
        self.addresses = addresses
        self.settings = settings
        self.port = lasting_port()
        self.data = folder / "data"
        shutil.chown(folder, USER)
        # pytest's own folders are its user's alone.
        for parent in [*folder.parents][:3]:
            parent.chmod(parent.stat().st_mode | 0o011)
        self.run(
            "initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--pgdata", self.data
        )
        if len(addresses) > 1:
            with (self.data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\n")
        self.server = None

    @property
    def url(self):
        return self.url_at("127.0.0.1")

    def url_at(self, address):
        return f"postgres://{USER}@{address}:{self.port}/postgres"

    def command(self, name, *arguments):
        account = pwd.getpwnam(USER)
        return [
            "setpriv",
            f"--reuid={account.pw_uid}",
            f"--regid={account.pw_gid}",
            "--clear-groups",
            program(name),
            *map(str, arguments),
        ]

    def run(self, name, *arguments):
        done = subprocess.run(
            self.command(name, *arguments), cwd="/", capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self):
        log = (self.folder / "log").open("ab")
        self.server = subprocess.Popen(
            self.command(
                "postgres", "-D", self.data,
                "-c", f"listen_addresses={','.join(self.addresses)}",
                "-c", f"port={self.port}",
                "-c", f"unix_socket_directories={self.folder}",
                "-c", "shared_buffers=16MB",
                *(word for setting in self.settings for word in ("-c", setting)),
            ),
            cwd="/",
            stdout=log,
            stderr=log,
        )
        ready = ["--host=127.0.0.1", f"--port={self.port}"]
        eventually(
            "PostgreSQL answers",
            lambda: subprocess.run([program("pg_isready"), *ready], capture_output=True, check=False).returncode == 0,
            START_SECONDS,
        )
        return self

    def stop(self, how=signal.SIGINT):
        """SIGINT ends it in order at once (PostgreSQL's "fast shutdown"), SIGQUIT without any."""
        self.server.send_signal(how)
        self.server.wait(60)

    def kill(self):
        """All its processes at once, as when the machine's memory is short."""
        # One that it forked in between would live on, and hold its memory.
        os.kill(self.server.pid, signal.SIGSTOP)
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split()
        for pid in [self.server.pid, *map(int, children)]:
            os.kill(pid, signal.SIGKILL)
        self.server.wait(60)
        # A new server does not start beside one of them.
        eventually("all are gone", lambda: not any(is_alive(int(pid)) for pid in children), 60)

    def statements(self, sql):
        return self.run("psql", "--host=127.0.0.1", f"--port={self.port}", "--tuples-only", "--command", sql, "postgres")
