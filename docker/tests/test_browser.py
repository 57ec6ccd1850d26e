"""JupyterLab as a renter sees it: Chromium, through a gate that adds the credential."""

import json
import os
import re
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from loopback_gate import LoopbackGate

NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "id": "one",
            "execution_count": None,
            "metadata": {},
            "outputs": [],
            "source": "import ipywidgets, matplotlib.pyplot as plt\nplt.plot([1, 4, 9]); plt.show()\nprint(6*7)\nipywidgets.IntSlider(description='slide')",
        }
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.fixture(scope="module")
def gate(jupyter):
    with LoopbackGate(jupyter.port, jupyter.token) as gate:
        yield gate


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    assert chromium, "no Chromium: docker/setup.sh test"
    # Chromium's own sandbox cannot start as root, and here it only opens our own pages.
    args = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=args)
        yield browser
        browser.close()


class Visit:
    """A page, with everything that it said and asked for."""

    def __init__(self, browser):
        self.context = browser.new_context()
        self.page = self.context.new_page()
        self.errors, self.requests, self.failed, self.kernel_frames = [], [], [], []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("websocket", self.listen)
        self.page.on("response", lambda answer: self.failed.append((answer.status, answer.url)) if answer.status >= 400 else None)

    def listen(self, websocket):
        if "/channels" in websocket.url:
            websocket.on("framereceived", lambda frame: self.kernel_frames.append(frame))


@pytest.fixture
def visit(browser):
    visit = Visit(browser)
    yield visit
    visit.context.close()


def test_a_notebook_runs_with_a_plot_and_a_widget(jupyter, gate, visit):
    jupyter.exec("sh", "-c", f"cat > /workspace/n.ipynb <<'END'\n{json.dumps(NOTEBOOK)}\nEND", check=True)
    page = visit.page
    page.goto(f"http://127.0.0.1:{gate.port}{jupyter.base_url}lab/tree/n.ipynb")
    cell = page.locator(".jp-Notebook .jp-CodeCell").first
    expect(cell).to_be_visible(timeout=60_000)
    # JupyterLab says idle before it is connected to the kernel, and drops what is run in between.
    wait_for(lambda: visit.kernel_frames, page, seconds=60)
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)
    cell.click()
    page.keyboard.press("Shift+Enter")
    expect(cell.locator(".jp-OutputArea")).to_contain_text("42", timeout=60_000)
    expect(cell.locator(".jp-OutputArea img").first).to_be_visible(timeout=30_000)
    expect(cell.locator(".widget-slider")).to_contain_text("slide", timeout=30_000)
    assert visit.errors == []
    assert visit.failed == []


def test_a_terminal_opens(jupyter, gate, visit):
    page = visit.page
    page.goto(f"http://127.0.0.1:{gate.port}{jupyter.base_url}lab?reset")
    page.locator(".jp-LauncherCard", has_text="Terminal").click(timeout=60_000)
    terminal = page.locator(".jp-Terminal-body.xterm")
    expect(terminal).to_be_visible(timeout=30_000)
    terminal.click()
    page.keyboard.type("touch /workspace/from-terminal\n")
    wait_for(lambda: jupyter.exec("test", "-e", "/workspace/from-terminal").returncode == 0, page)
    assert visit.errors == []
    assert visit.failed == []


def test_the_page_asks_nobody_else_and_learns_no_secret(jupyter, gate, visit):
    page = visit.page
    page.goto(f"http://127.0.0.1:{gate.port}{jupyter.base_url}lab?reset")
    expect(page.locator(".jp-LauncherCard").first).to_be_visible(timeout=60_000)
    page.wait_for_load_state("networkidle")
    assert visit.requests
    ours = re.compile(rf"^(http|ws)://127\.0\.0\.1:{gate.port}/|^data:|^blob:")
    assert [request.url for request in visit.requests if not ours.match(request.url)] == []
    assert not [request.url for request in visit.requests if "announcements" in request.url or "/lab/api/news" in request.url]
    for request in visit.requests:
        assert jupyter.token not in request.url
        assert jupyter.token not in str(request.headers)
    assert jupyter.token not in page.content()
    assert visit.context.cookies() == []


def wait_for(condition, page, seconds=30):
    for _ in range(seconds * 10):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"did not come true within {seconds} s")
