"""The agent as a container and as a service: shut in, and able to do its work all the same."""

import configparser
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from jupyter_container import docker

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

# As docker/agent/Dockerfile says.
CONFINED = [
    "--network=host",
    "--cap-drop=ALL",
    "--cap-add=NET_ADMIN",
    "--security-opt=no-new-privileges",
    "--read-only",
    "--tmpfs=/tmp",
    "--volume=/var/run/docker.sock:/var/run/docker.sock",
]


@pytest.fixture(scope="module")
def agent_image(run_id):
    tag = f"runit-agent-test-{run_id}"
    built = subprocess.run(
        [ROOT / "docker/agent/build.sh", tag],
        env={**os.environ, "RUNIT_BINARY": str(TARGET / "debug/runit-agent")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    yield tag
    docker("image", "rm", "--force", tag)


def test_the_container_can_set_rules_and_limits_with_one_capability(agent_image, image, tmp_path):
    done = docker(
        "run",
        "--rm",
        *CONFINED,
        f"--volume={tmp_path}:{tmp_path}",
        "--env=RUNIT_AGENT__PROVIDER_ID=test",
        f"--env=RUNIT_AGENT__STATE_DIR={tmp_path}/state",
        f"--env=RUNIT_CONTAINER__IMAGE={image}",
        "--env=RUNIT_TUNNEL__KIND=direct",
        agent_image,
        "doctor",
        "--json",
        check=False,
        timeout=120,
    )
    checks = {check["what"]: check for check in json.loads(done.stdout)["checks"]}
    for what in ("engine", "image", "limits", "egress", "tunnel"):
        assert checks[what]["verdict"] == "good", checks[what]
    # There is no control API here, and that is bad.
    assert checks["control"]["verdict"] == "bad"
    assert done.returncode == 1


def test_the_service_has_one_capability_and_cleans_up_after_a_crash():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(ROOT / "docker/agent/runit-agent.service")
    service = unit["Service"]
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == "CAP_NET_ADMIN"
    assert service["DynamicUser"] == service["NoNewPrivileges"] == "yes"
    assert " up " in service["ExecStart"]
    assert " down " in service["ExecStopPost"]
    # Settings that are wrong stay wrong.
    assert service["RestartPreventExitStatus"] == "2"


def test_an_ordinary_user_with_the_right_to_set_rules_is_enough(image):
    """What the service's user has, by the means of util-linux."""
    group = os.stat("/var/run/docker.sock").st_gid
    # Not pytest's own directory, which is root's alone.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        program = shutil.copy(TARGET / "debug/runit-agent", folder)
        done = subprocess.run(
            [
                *("setpriv", "--reuid=12345", "--regid=12345", f"--groups={group}", "--no-new-privs"),
                *("--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin"),
                *(program, "doctor", "--json"),
            ],
            env={
                "PATH": os.environ["PATH"],
                "RUNIT_AGENT__PROVIDER_ID": "test",
                "RUNIT_AGENT__STATE_DIR": f"{folder}/state",
                "RUNIT_CONTAINER__IMAGE": image,
                "RUNIT_TUNNEL__KIND": "direct",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.stdout, done.stderr
    checks = {check["what"]: check for check in json.loads(done.stdout)["checks"]}
    for what in ("engine", "limits", "egress"):
        assert checks[what]["verdict"] == "good", checks[what]
