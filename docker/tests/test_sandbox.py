"""What the container shuts in, seen from inside and by the engine."""

import re
import subprocess
import tarfile

import pytest

from jupyter_container import docker, host_ca_bundle

GIB = 1024**3


def test_the_user_is_jupyteruser(jupyter):
    assert jupyter.exec("whoami").stdout.strip() == "jupyteruser"
    assert jupyter.exec("id", "-u").stdout.strip() == "1000"


def test_the_first_line_says_who_it_runs_as(jupyter):
    assert jupyter.logs().splitlines()[0] == "Running as: jupyteruser"


@pytest.mark.parametrize("path", ["/etc/x", "/opt/jupyter/x", "/usr/local/bin/x", "/home/x", "/var/tmp/x", "/x"])
def test_the_root_is_read_only(jupyter, path):
    touched = jupyter.exec("touch", path)
    assert touched.returncode != 0
    assert "Read-only file system" in touched.stderr


def test_workspace_and_tmp_are_writable(jupyter):
    jupyter.exec("sh", "-c", "echo a > /workspace/a && echo b > /tmp/b && rm /workspace/a /tmp/b", check=True)


def test_nothing_in_tmp_can_be_executed(jupyter):
    ran = jupyter.exec("sh", "-c", "cp /bin/true /tmp/true && /tmp/true")
    assert ran.returncode != 0
    assert "Permission denied" in ran.stderr
    options = jupyter.exec("sh", "-c", "grep ' /tmp ' /proc/mounts").stdout.split()[3].split(",")
    assert {"noexec", "nosuid"} <= set(options)


def test_tmp_keeps_the_sticky_bit_and_is_for_everybody(jupyter):
    assert jupyter.exec("stat", "-c", "%a", "/tmp").stdout.strip() == "1777"


def test_no_process_has_a_capability(jupyter):
    status = jupyter.exec("sh", "-c", "cat /proc/[0-9]*/status").stdout
    sets = re.findall(r"^(Cap\w+):\s+(\w+)$", status, re.MULTILINE)
    assert {name for name, _ in sets} == {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
    assert all(int(bits, 16) == 0 for _, bits in sets)


def test_no_new_privileges_is_set_on_every_process(jupyter):
    flags = re.findall(r"^NoNewPrivs:\s+(\d)$", jupyter.exec("sh", "-c", "cat /proc/[0-9]*/status").stdout, re.MULTILINE)
    assert flags
    assert set(flags) == {"1"}


def test_the_engine_is_out_of_reach(jupyter):
    for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"):
        assert jupyter.exec("test", "-e", path).returncode != 0
    sockets = jupyter.exec("sh", "-c", "find / -xdev -type s 2>/dev/null").stdout.split()
    assert sockets == []


def test_limits_by_inspect(jupyter):
    host = jupyter.inspect()["HostConfig"]
    assert host["Memory"] == 4 * GIB
    assert host["MemorySwap"] == 4 * GIB
    assert host["NanoCpus"] == 2_000_000_000
    assert host["PidsLimit"] == 100
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges"]


@pytest.mark.parametrize(
    ("limit", "v1", "v2", "expected"),
    [
        ("memory", "memory/memory.limit_in_bytes", "memory.max", str(4 * GIB)),
        ("processes", "pids/pids.max", "pids.max", "100"),
    ],
)
def test_limits_from_inside(jupyter, limit, v1, v2, expected):
    seen = jupyter.exec("sh", "-c", f"cat /sys/fs/cgroup/{v2} 2>/dev/null || cat /sys/fs/cgroup/{v1}")
    assert seen.stdout.strip() == expected, f"{limit}: {seen.stderr}"


def test_cpu_limit_from_inside(jupyter):
    seen = jupyter.exec(
        "sh",
        "-c",
        "cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us",
    )
    quota, period = seen.stdout.split()
    assert int(quota) / int(period) == 2.0


def test_the_hundredth_process_is_refused_and_the_server_lives_on(jupyter):
    flood = jupyter.exec("bash", "-c", "for i in $(seq 150); do sleep 20 & done; wait %1", timeout=60)
    assert "Resource temporarily unavailable" in flood.stderr
    assert jupyter.get("api/status").ok


def test_the_ca_bundle_of_the_build_is_not_in_the_image(image, run_id):
    """Neither as a file, nor a certificate of it that Debian does not have, nor in the history."""
    name = f"runit-test-{run_id}-export"
    docker("create", f"--name={name}", image)
    try:
        with subprocess.Popen(["docker", "export", name], stdout=subprocess.PIPE) as export:
            names, debians, blobs = [], b"", b""
            with tarfile.open(fileobj=export.stdout, mode="r|") as tree:
                for member in tree:
                    names.append(member.name)
                    if not member.isfile() or not member.name.endswith((".crt", ".pem", ".0")):
                        continue
                    content = tree.extractfile(member).read()
                    blobs += content
                    if member.name == "etc/ssl/certs/ca-certificates.crt":
                        debians = content
    finally:
        docker("rm", "--force", name)

    assert not [path for path in names if path.endswith("ca-bundle.crt")]
    assert "ca-bundle" not in docker("history", "--no-trunc", image).stdout
    assert debians, "the image has no CA bundle of its own"
    bundle = host_ca_bundle()
    if bundle is not None:
        own_to_the_host = certificates(bundle.read_bytes()) - certificates(debians) - certificates(certifis(image))
        assert not own_to_the_host & certificates(blobs)


def certifis(image):
    return docker("run", "--rm", "--entrypoint=python", image, "-c", "import certifi; print(certifi.contents())").stdout.encode()


def certificates(pem):
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", pem, re.DOTALL)
    return {b"".join(block.split()) for block in blocks}


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ([], "RUNIT_JUPYTER_TOKEN is not set"),
        (["--env=RUNIT_JUPYTER_TOKEN="], "RUNIT_JUPYTER_TOKEN is not set"),
        (["--env=RUNIT_JUPYTER_TOKEN=t", "--env=RUNIT_BASE_URL=/s/abc"], "RUNIT_BASE_URL must be a path"),
        (["--env=RUNIT_JUPYTER_TOKEN=t", "--env=RUNIT_BASE_URL=/s/a b/"], "RUNIT_BASE_URL must be a path"),
        (["--env=RUNIT_JUPYTER_TOKEN=t", "--user=0:0"], "will not run as root"),
        (["--env=RUNIT_JUPYTER_TOKEN=t", "--read-only"], "/workspace cannot be written to"),
    ],
)
def test_it_refuses_to_start_without_what_it_needs(image, env, reason):
    started = docker("run", "--rm", *env, image, check=False)
    assert started.returncode == 64
    assert reason in started.stderr
