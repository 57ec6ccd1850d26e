"""What a renter's code finds itself in, from inside and as the engine tells it."""

import json

import pytest
from jupyter_kernel_client import JupyterKernelClient

from house import docker, eventually

PROBE = """
import json, os, pathlib, subprocess

def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return [done.returncode, (done.stdout + done.stderr).strip()]

def read(*paths):
    return next((pathlib.Path(one).read_text().strip() for one in paths if os.path.exists(one)), None)

status = dict(line.split(":\\t", 1) for line in read("/proc/self/status").splitlines() if ":\\t" in line)
print(json.dumps({
    "whoami": run("whoami"),
    "uid": os.getuid(),
    "touch_etc": run("touch", "/etc/x"),
    "touch_workspace": run("touch", "/workspace/x"),
    "mounts": {line.split()[1]: line.split()[3].split(",") for line in read("/proc/mounts").splitlines()},
    "memory": read("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    "pids": read("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"),
    "cpu": read("/sys/fs/cgroup/cpu.max"),
    "cpu_v1": [read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")],
    "capabilities": {key: status[key].strip() for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "sockets": [str(one) for one in pathlib.Path("/run").rglob("*.sock")] + [str(one) for one in pathlib.Path("/var/run").rglob("*.sock")],
}))
"""


@pytest.fixture(scope="module")
def inside(node, agent):
    access = node.request(agent.session_id)
    with JupyterKernelClient(
        server_url=node.session_url(access.session_id), token=access.token
    ) as kernel:
        reply = kernel.execute(PROBE, timeout=60)
    assert reply["status"] == "ok", reply
    return json.loads("".join(one["text"] for one in reply["outputs"]))


@pytest.fixture(scope="module")
def told(agent):
    return agent.inspect()["HostConfig"]


def test_code_runs_as_jupyteruser(inside):
    assert inside["whoami"] == [0, "jupyteruser"]
    assert inside["uid"] == 1000


def test_the_root_is_read_only_and_the_workspace_is_not(inside, told):
    status, message = inside["touch_etc"]
    assert status != 0
    assert "Read-only file system" in message
    assert inside["touch_workspace"] == [0, ""]
    assert told["ReadonlyRootfs"] is True


def test_tmp_is_a_tmpfs_without_programs(inside, told):
    assert {"noexec", "nosuid"} <= set(inside["mounts"]["/tmp"])
    assert {"noexec", "nosuid"} <= set(told["Tmpfs"]["/tmp"].split(","))


def test_memory_processes_and_processor_time_are_limited(inside, told):
    assert int(inside["memory"]) == told["Memory"] == 4 << 30
    assert told["MemorySwap"] == 4 << 30
    assert int(inside["pids"]) == told["PidsLimit"] == 100
    quota, period = inside["cpu"].split() if inside["cpu"] else inside["cpu_v1"]
    assert int(quota) / int(period) == 2.0
    assert told["NanoCpus"] == 2_000_000_000


def test_there_is_no_capability_and_no_way_to_gain_one(inside, told):
    assert {int(value, 16) for value in inside["capabilities"].values()} == {0}
    assert inside["no_new_privileges"] == "1"
    assert told["CapDrop"] == ["ALL"]
    assert not told["CapAdd"]
    assert told["Privileged"] is False
    assert any(option.startswith("no-new-privileges") for option in told["SecurityOpt"])


def test_the_engine_cannot_be_reached_and_nothing_of_the_host_is_mounted(
    inside, agent, told
):
    assert inside["sockets"] == []
    assert not told["Binds"]
    assert not told["Devices"]
    assert [
        (mount["Type"], mount["Destination"]) for mount in agent.inspect()["Mounts"]
    ] == [("volume", "/workspace")]
    assert told["NetworkMode"] != "host"
    assert told["PidMode"] == ""


def test_what_it_uses_is_told_against_its_limits(node, agent, told):
    docker("exec", "--detach", agent.container, "timeout", "60", "sh", "-c", "while :; do :; done")

    def computing():
        report = agent.told(node)["report"] or {}  # none before the first heartbeat
        return report if report.get("millicores", 0) > 100 else None

    report = eventually("a loop is seen to use the processor", computing, 60)
    assert report["limits"] == {
        "millicores": told["NanoCpus"] // 1_000_000,
        "memoryBytes": told["Memory"],
        "processes": told["PidsLimit"],
    }
    assert 0 < report["memoryBytes"] < told["Memory"]
    assert 0 < report["processes"] <= told["PidsLimit"]
