"""What a renter does: kernels, plots, packages, git, terminals, files."""

import json
import time

import pytest
import requests
import websocket

from jupyter_container import JupyterContainer, docker, host_ca_bundle

CA_INSIDE = "/tmp/host-ca.crt"


def test_a_kernel_computes(jupyter):
    with jupyter.kernel() as kernel:
        assert kernel.run("print(6*7)")[0] == "42\n"


def test_the_first_plot_is_drawn_without_a_warning(jupyter):
    with jupyter.kernel() as kernel:
        text, displayed = kernel.run(
            "import warnings; warnings.simplefilter('error')\n"
            "import numpy as np, matplotlib.pyplot as plt\n"
            "plt.plot(np.arange(10) ** 2); plt.show()"
        )
    assert text == ""
    assert any("image/png" in bundle for bundle in displayed)


def test_a_widget_is_displayed(jupyter):
    with jupyter.kernel() as kernel:
        _, displayed = kernel.run("import ipywidgets; display(ipywidgets.IntSlider())")
    assert any("application/vnd.jupyter.widget-view+json" in bundle for bundle in displayed)


def test_twenty_megabytes_of_output_arrive_whole(jupyter):
    size = 20_000_000
    with jupyter.kernel() as kernel:
        text, _ = kernel.run(f"print('x' * {size}, end='')")
    assert len(text) == size


def test_output_in_many_lines_arrives_whole_and_in_order(jupyter):
    lines = 200_000
    with jupyter.kernel() as kernel:
        text, _ = kernel.run(f"for i in range({lines}): print(i)")
    assert text == "".join(f"{i}\n" for i in range(lines))


def test_a_package_is_installed_into_the_workspace_and_imported(jupyter):
    env = trust_host_ca(jupyter)
    installed = jupyter.exec("pip", "install", "--no-deps", "cowsay==6.1", env=env, timeout=180)
    assert installed.returncode == 0, installed.stderr
    with jupyter.kernel() as kernel:
        path, _ = kernel.run("import cowsay; print(cowsay.__file__)")
    assert path.startswith("/workspace/.runit/venv/")


def test_a_package_of_the_image_can_be_replaced_and_brought_back(jupyter):
    env = trust_host_ca(jupyter)
    version = "import packaging; print(packaging.__version__, packaging.__file__)"
    before = jupyter.exec("python", "-c", version, check=True).stdout
    assert "/opt/jupyter/" in before

    satisfied = jupyter.exec("pip", "install", "packaging", env=env, timeout=180)
    assert "Requirement already satisfied" in satisfied.stdout, satisfied.stderr
    jupyter.exec("pip", "install", "packaging==24.0", env=env, timeout=180, check=True)
    with jupyter.kernel() as kernel:
        assert kernel.run(version)[0].startswith("24.0 /workspace/")

    jupyter.exec("pip", "uninstall", "--yes", "packaging", check=True)
    assert jupyter.exec("python", "-c", version, check=True).stdout == before
    assert jupyter.get("api/status").ok


def test_a_magic_pip_uses_the_same_environment(jupyter):
    with jupyter.kernel() as kernel:
        text, _ = kernel.run("%pip --version")
    assert "/opt/jupyter/" in text
    which = jupyter.exec("python", "-c", "import sys; print(sys.prefix)").stdout.strip()
    assert which == "/workspace/.runit/venv"


def test_a_renters_own_virtual_environment_works(jupyter):
    made = jupyter.exec("sh", "-c", "python -m venv /workspace/own && /workspace/own/bin/pip --version", timeout=120)
    assert made.returncode == 0, made.stderr
    jupyter.exec("rm", "-r", "/workspace/own", check=True)


def test_git_works(jupyter):
    done = jupyter.exec(
        "bash",
        "-c",
        "set -e; git config --global user.name r; git config --global user.email r@example.org;"
        " git init -q /workspace/repo; cd /workspace/repo; echo x > f; git add f; git commit -qm first; git log --oneline;"
        " git clone -q . ../clone; cat ../clone/f; rm -rf ../repo ../clone",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "x"


def test_a_terminal_has_the_renters_environment(jupyter):
    name = requests.post(jupyter.url("api/terminals"), headers=jupyter.auth, timeout=30).json()["name"]
    terminal = websocket.create_connection(
        jupyter.url(f"terminals/websocket/{name}", scheme="ws"), header=jupyter.auth, timeout=30
    )
    try:
        terminal.send(json.dumps(["stdin", "echo $(whoami):$(pwd):$(which python):$((40+2))\r"]))
        seen, deadline = "", time.monotonic() + 30
        while ":42" not in seen:
            assert time.monotonic() < deadline, seen
            kind, *rest = json.loads(terminal.recv())
            seen += rest[0] if kind == "stdout" else ""
    finally:
        terminal.close()
        requests.delete(jupyter.url(f"api/terminals/{name}"), headers=jupyter.auth, timeout=30)
    assert "jupyteruser:/workspace:/workspace/.runit/venv/bin/python:42" in seen


def test_a_deleted_file_is_gone_and_its_space_free(jupyter):
    url = jupyter.url("api/contents/big.txt")
    body = {"type": "file", "format": "text", "content": "x" * 1_000_000}
    assert requests.put(url, headers=jupyter.auth, json=body, timeout=30).status_code == 201
    assert requests.delete(url, headers=jupyter.auth, timeout=30).status_code == 204
    left = jupyter.exec("find", "/workspace", "/tmp", "-name", "big*", "-o", "-iname", "*trash*", "-type", "d")
    assert [path for path in left.stdout.split() if "/venv/" not in path] == []


def test_a_file_of_two_hundred_megabytes_goes_in_and_out(jupyter):
    """The size that a session promises; the server holds the body in memory, so this also tries the limits."""
    content = "0123456789abcdef" * (200_000_000 // 16)
    url = jupyter.url("api/contents/large.txt")
    saved = requests.put(url, headers=jupyter.auth, json={"type": "file", "format": "text", "content": content}, timeout=120)
    assert saved.status_code == 201, saved.text[:500]
    assert jupyter.get("files/large.txt").text == content
    requests.delete(url, headers=jupyter.auth, timeout=30)


def test_a_fresh_workspace_looks_empty(jupyter, image, run_id):
    with JupyterContainer(image, f"runit-test-{run_id}-fresh", base_url="/") as fresh:
        fresh.wait_until_ready()
        assert fresh.get("api/contents").json()["content"] == []
        assert fresh.get("").status_code == 302
        assert fresh.get("").headers["Location"] == "/lab?"


def test_it_starts_again_with_a_workspace_that_has_been_used(image, run_id):
    with JupyterContainer(image, f"runit-test-{run_id}-again", base_url="/") as container:
        container.wait_until_ready()
        container.exec("sh", "-c", "echo kept > /workspace/kept", check=True)
        docker("stop", container.name)
        docker("start", container.name)
        container.port = int(docker("port", container.name, "8888/tcp").stdout.rsplit(":", 1)[1])
        container.wait_until_ready()
        assert container.get("files/kept").text == "kept\n"
        with container.kernel() as kernel:
            assert kernel.run("print(1)")[0] == "1\n"


@pytest.mark.parametrize("with_kernel", [False, True])
def test_sigterm_ends_it_well_before_the_engine_kills_it(image, run_id, with_kernel):
    with JupyterContainer(image, f"runit-test-{run_id}-stop{int(with_kernel)}", base_url="/") as container:
        container.wait_until_ready()
        if with_kernel:
            requests.post(container.url("api/kernels"), headers=container.auth, timeout=60).raise_for_status()
        docker("stop", "--time=20", container.name)
        state = container.inspect()["State"]
    assert state["ExitCode"] != 137, "it was killed"
    assert state["OOMKilled"] is False


def trust_host_ca(jupyter):
    """What this machine needs to reach a package index; at run time only, and on the tmpfs, so it is in no image."""
    bundle = host_ca_bundle()
    if bundle is None:
        return {}
    jupyter.copy_in(bundle, CA_INSIDE)
    return {"PIP_CERT": CA_INSIDE}
