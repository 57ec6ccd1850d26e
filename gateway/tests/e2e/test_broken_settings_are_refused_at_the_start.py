"""Neither program starts with settings that are broken: it says what is wrong with which key, and ends."""

import os
import socket
import subprocess

import pytest

import house
from house import Node, toml

PROGRAMS = {"runit-gateway": [], "runit-control": ["serve"]}
ENDS_WITHIN_SECONDS = 30


def attempt(folder, program, settings, environment=None):
    config = folder / "runit.toml"
    config.write_text(settings if isinstance(settings, str) else toml(settings))
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RUNIT_")}
    return subprocess.run(
        [house.PROGRAMS / program, *PROGRAMS[program], "--config", config],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**inherited, **(environment or {})},
        timeout=ENDS_WITHIN_SECONDS,
    )


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"quota.cap_bites": 1}, "cap_bites"),
        ({"quota.cap_bytes": -1}, "quota.cap_bytes"),
        ({"control.sweep_interval_ms": 0}, "control.sweep_interval_ms"),
        ({"control.data_dir": ""}, "control.data_dir"),
        ({"log.filter": "runit=loud=er"}, "log.filter"),
        (
            {"control.tls": {"certificate": "/no/such.pem", "key": "/no/such.key"}},
            "control.tls",
        ),
    ],
)
def test_a_broken_key_is_named(tmp_path, program, change, named):
    settings = {**Node(tmp_path).settings, **change}
    run = attempt(tmp_path, program, settings)
    assert run.returncode == 1, (run.returncode, run.stderr)
    assert named in run.stderr and "panicked" not in run.stderr, run.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_all_that_is_wrong_is_said_at_once(tmp_path, program):
    settings = {
        **Node(tmp_path).settings,
        "control.sweep_interval_ms": 0,
        "control.body_max_bytes": 0,
    }
    wrong = {"RUNIT_LOCK__MODE": "whatever"}
    run = attempt(tmp_path, program, settings, wrong)
    assert run.returncode == 1, run.stderr
    for key in ["control.sweep_interval_ms", "control.body_max_bytes"]:
        assert key in run.stderr, run.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_no_settings_file_is_refused(tmp_path, program):
    run = attempt(tmp_path, program, "[gateway\nlisten = ")
    assert run.returncode == 1 and "runit.toml" in run.stderr, run.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_address_that_is_taken_is_named(tmp_path, program):
    settings = Node(tmp_path).settings
    host, port = settings["control.listen"].split(":")
    with socket.create_server((host, int(port))):
        run = attempt(tmp_path, program, settings)
    assert run.returncode == 1 and "control.listen" in run.stderr, run.stderr


def test_a_core_that_the_node_may_not_use_is_named(tmp_path):
    settings = {**Node(tmp_path).settings, "gateway.cores": [1023]}
    run = attempt(tmp_path, "runit-gateway", settings)
    assert run.returncode == 1, run.stderr
    for words in ["gateway.cores", "this process may not use core 1023"]:
        assert words in run.stderr, run.stderr
