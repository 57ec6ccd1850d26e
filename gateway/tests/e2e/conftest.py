"""Fixtures: the house at work. A part that is missing (program, engine, image, browser) is a failure, never a skip."""

import secrets
import subprocess

import pytest
from playwright.sync_api import sync_playwright

import house
from house import Agent, ControlTap, Node
from provider import Provider

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for program in house.running:
            report.sections.append((f"log of {program.name}", program.last_words()))
    return report


@pytest.fixture(scope="session")
def image():
    """The image as build.sh makes it: from the engine's cache where nothing has changed."""
    build = subprocess.run(
        [house.ROOT / "docker/jupyter/build.sh"],
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert build.returncode == 0, (
        f"build.sh failed:\n{build.stdout[-4000:]}\n{build.stderr[-4000:]}"
    )


@pytest.fixture(scope="module")
def node_settings():
    """What a module's node is told beside its ports: `{"section.key": value}`. Modules override it."""
    return {}


@pytest.fixture(scope="module")
def node(tmp_path_factory, node_settings):
    node = Node(tmp_path_factory.mktemp("node"), node_settings)
    try:
        yield node.start()
    finally:
        node.stop()


@pytest.fixture(scope="module")
def control_tap(node):
    tap = ControlTap(node.control_url)
    yield tap
    tap.close()


@pytest.fixture(scope="module")
def agent(tmp_path_factory, node, control_tap, image):
    agent = Agent(
        tmp_path_factory.mktemp("agent"),
        control_tap.url,
        f"runit-e2e-{secrets.token_hex(4)}",
    )
    try:
        yield agent.start()
    finally:
        agent.stop()


@pytest.fixture
def provider():
    """A provider's server that streams, swallows and echoes, and counts who reached it."""
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=CHROMIUM_FLAGS
        )
        yield browser
        browser.close()
