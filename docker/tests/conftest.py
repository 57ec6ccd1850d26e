"""Real parts: the engine, the image, JupyterLab in a container with the flags that a session has.

Nothing is skipped: no engine or no image is a failure. Every container and volume has a name of this run and is removed
at its end.
"""

import secrets
import subprocess
from pathlib import Path

import pytest

from jupyter_container import JupyterContainer

DOCKER_DIR = Path(__file__).resolve().parent.parent
IMAGE = "runit-jupyter"


@pytest.fixture(scope="session")
def image():
    """The image as build.sh makes it: from the engine's cache where nothing has changed."""
    built = subprocess.run(
        [DOCKER_DIR / "jupyter" / "build.sh", IMAGE], capture_output=True, text=True, timeout=900
    )
    assert built.returncode == 0, f"build.sh failed:\n{built.stdout[-4000:]}\n{built.stderr[-4000:]}"
    return IMAGE


@pytest.fixture(scope="session")
def run_id():
    return secrets.token_hex(4)


@pytest.fixture(scope="module")
def jupyter(image, run_id, request):
    """One running session container per test module."""
    name = f"runit-test-{run_id}-{request.module.__name__.removeprefix('test_')}"
    with JupyterContainer(image, name, base_url=f"/s/{secrets.token_hex(4)}/") as container:
        container.wait_until_ready()
        yield container
