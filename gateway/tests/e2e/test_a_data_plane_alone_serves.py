"""A data plane without a control API, and a control plane without a data plane, on one PostgreSQL: together they are a node."""

import socket
import time

import pytest
import requests

from house import PROGRAMS, START_SECONDS, Node, Program, eventually, renter, toml
from postgres import Postgres
from test_several_nodes_share_one_cap import HEARD_SECONDS, ends, share_key, websocket

READY_SECONDS = 30


class ControlPlane(Node):
    """runit-control serve: the control API alone."""

    def start(self):
        config = self.folder / "runit.toml"
        config.write_text(toml(self.settings))
        self.program = Program("runit-control", self.folder, [PROGRAMS / "runit-control", "serve", "--config", config])
        self.program.wait_until(
            "control API answers",
            lambda: requests.get(f"{self.control_url}/", timeout=5).status_code == 200,
            START_SECONDS,
        )
        return self


class DataPlane(Node):
    """runit-gateway that serves no control API."""

    def is_up(self):
        socket.create_connection(self.address, timeout=1).close()
        return requests.get(f"{self.admin_url}/livez", timeout=5).status_code == 200


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    postgres = Postgres(tmp_path_factory.mktemp("postgres"))
    yield postgres.start()
    postgres.stop()


@pytest.fixture(scope="module")
def planes(tmp_path_factory, postgres):
    control = ControlPlane(tmp_path_factory.mktemp("control"), {"store.url": postgres.url})
    data = DataPlane(tmp_path_factory.mktemp("data"), {"store.url": postgres.url, "control.enabled": False})
    control.settings["gateway.public_url"] = data.gateway_url
    started = []
    try:
        started.append(control.start())
        share_key(control, data)
        started.append(data.start())
        yield control, data
    finally:
        for plane in started:
            plane.stop()


def test_both_are_ready(planes):
    for plane in planes:
        eventually(
            "it is ready", lambda plane=plane: requests.get(f"{plane.admin_url}/readyz", timeout=10).ok, READY_SECONDS
        )


def test_a_renter_is_served_by_one_and_released_by_the_other(planes, provider):
    control, data = planes
    session = control.register(provider.url)
    token, path = session["accessToken"], f"/s/{session['sessionId']}/"
    assert renter(token).get(data.gateway_url + path, timeout=HEARD_SECONDS).status_code == 200
    open_one = websocket(data, f"{path}websocket", token)
    eventually("its use is known", lambda: control.usage(token).total > 0, HEARD_SECONDS)

    control.release(token)
    released = time.monotonic()
    open_one.settimeout(HEARD_SECONDS)
    assert ends(open_one), "an idle WebSocket outlived the release"
    print(f"it ended {time.monotonic() - released:.2f} s after the release")
    assert renter(token).get(data.gateway_url + path).status_code == 403
    control.deregister(session)
