"""A renter in Chromium: from the page to JupyterLab, a cell, a terminal; and no secret comes that far.

Plain JupyterLab in the same image writes no error to the console (docker/tests/test_browser.py), so none is allowed here.
"""

import json
import time

import pytest
import requests
from playwright.sync_api import expect

from house import eventually

PAGE_MS = 60_000
SHELL_SECONDS = 30
BODILESS = {101, 204, 304, *range(300, 304), 307, 308}


COLLECT_SECRETS = """
import glob, json, os, re
found = set(os.environ.values())
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    try:
        found.update(open(path, errors="replace").read().split("\\0"))
    except OSError:
        pass
for folder in ("/tmp", "/workspace", "/run", "/etc/jupyter", "/opt/jupyter/etc"):
    for path in glob.glob(folder + "/**", recursive=True, include_hidden=True):
        try:
            if os.path.isfile(path) and os.path.getsize(path) < 1_000_000:
                found.update(re.findall(r"[A-Za-z0-9_-]{16,}", open(path, errors="replace").read()))
        except OSError:
            pass
found.update(part for text in list(found) for part in re.findall(r"[A-Za-z0-9_-]{16,}", text))
with open("/workspace/found.json", "w") as file:
    json.dump(sorted(text for text in found if text.isprintable() and 8 <= len(text) < 300), file)
print("collected")
"""

NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "id": name,
            "execution_count": None,
            "metadata": {},
            "outputs": [],
            "source": source,
        }
        for name, source in (("sum", "print(6*7)"), ("secrets", COLLECT_SECRETS))
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


class Visit:
    """A browser of its own, with all that it saw of the wire, and what its console said."""

    def __init__(self, browser):
        self.context = browser.new_context()
        self.page = self.context.new_page()
        self.errors, self.failed, self.frames, self.responses = [], [], [], []
        self.page.on(
            "console",
            lambda message: (
                self.errors.append(message.text) if message.type == "error" else None
            ),
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "requestfailed",
            lambda request: self.failed.append((request.url, request.failure)),
        )
        self.page.on("response", lambda response: self.responses.append(response))
        self.page.on("websocket", self.watch)

    def watch(self, websocket):
        self.frames.append(websocket.url)
        for event in ("framereceived", "framesent"):
            websocket.on(event, lambda frame: self.frames.append(frame))

    def everything_seen(self):
        """URLs, headers and bodies in both directions, frames, and what scripts can read, as (where, bytes)."""
        for response in self.responses:
            request = response.request
            yield (
                f"request {request.url}",
                f"{request.url} {request.all_headers()}".encode(),
            )
            yield f"request body {request.url}", request.post_data_buffer or b""
            yield f"response {request.url}", str(response.headers_array()).encode()
            if response.status not in BODILESS and request.method != "HEAD":
                yield f"response body {request.url}", response.body()
        for frame in self.frames:
            yield "frame", frame if isinstance(frame, bytes) else frame.encode()
        yield "page", self.page.content().encode()
        yield "cookies", json.dumps(self.context.cookies()).encode()
        yield (
            "storage",
            self.page.evaluate(
                "JSON.stringify([localStorage, sessionStorage])"
            ).encode(),
        )


@pytest.fixture(scope="module")
def access(node, agent):
    return node.request(agent.session_id)


@pytest.fixture(scope="module")
def visit(chromium, node, agent, access):
    """One visit with a cell run and a terminal used; the tests below look at what came of it."""
    visit = Visit(chromium)
    page = visit.page
    page.goto(access.link)
    page.locator(".jp-LauncherCard", has_text="Terminal").click(timeout=PAGE_MS)
    terminal = page.locator(".jp-Terminal-body.xterm")
    expect(terminal).to_be_visible(timeout=PAGE_MS)
    terminal.click()
    page.keyboard.type("whoami > /workspace/from-terminal\n")
    open_notebook(page, node.session_url(access.session_id))
    run_cell(page, 0, says="42")
    yield visit
    visit.context.close()


def open_notebook(page, base):
    """Saves a notebook and opens it from the file browser, in the page that is open.

    JupyterLab shows its kernel as idle before it is connected to it, and forgets what is run in between: so the
    kernel's first message has to be here before a cell is run.
    """
    page.evaluate(
        """async ([url, content]) => await fetch(url, {
            method: "PUT",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ type: "notebook", format: "json", content }),
        })""",
        [f"{base}/api/contents/probe.ipynb", NOTEBOOK],
    )
    page.get_by_title("Refresh the file browser.").click(timeout=PAGE_MS)
    frames = []

    def listen(websocket):
        if "/channels" in websocket.url:
            websocket.on("framereceived", lambda frame: frames.append(frame))

    page.on("websocket", listen)
    page.locator(".jp-DirListing-item", has_text="probe.ipynb").dblclick(
        timeout=PAGE_MS
    )
    deadline = time.monotonic() + PAGE_MS / 1000
    while not frames:
        assert time.monotonic() < deadline, "no message from the kernel"
        page.wait_for_timeout(50)
    idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    expect(idle).to_be_visible(timeout=PAGE_MS)


def run_cell(page, number, says):
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(number)
    cell.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    expect(cell.locator(".jp-OutputArea")).to_contain_text(says, timeout=PAGE_MS)


def test_jupyterlab_renders_and_a_cell_runs(visit):
    expect(visit.page.locator("#jp-main-dock-panel")).to_be_visible()
    expect(visit.page.locator(".jp-Notebook .jp-OutputArea").first).to_contain_text(
        "42"
    )


def test_a_terminal_works(visit, node, access):
    def written():
        url = f"{node.session_url(access.session_id)}/api/contents/from-terminal?content=1"
        return (
            visit.page.evaluate("async url => (await fetch(url)).json()", url).get(
                "content"
            )
            == "jupyteruser\n"
        )

    eventually("the terminal's file is there", written, SHELL_SECONDS)


def test_the_console_shows_no_error(visit):
    assert visit.errors == []
    assert visit.failed == []


def test_nothing_that_the_browser_sees_holds_a_secret_of_the_provider(
    visit, agent, control_tap
):
    gate_tokens = control_tap.gate_tokens()
    assert gate_tokens
    secrets = {
        agent.jupyter_token(),
        *gate_tokens,
        agent.gate_url.removeprefix("http://"),
        agent.state()["providerSecret"],
    }
    assert len(visit.responses) > 50

    found = [
        (secret, where)
        for where, seen in visit.everything_seen()
        for secret in secrets
        if secret.encode() in seen
    ]

    assert found == []


def test_the_access_token_leaves_the_address_bar_and_scripts_cannot_read_the_cookie(
    visit, access
):
    assert access.token not in visit.page.url
    assert access.token not in visit.page.evaluate("document.cookie")


def test_another_browser_with_the_same_link_sees_that_it_is_in_use(
    visit, chromium, access
):
    context = chromium.new_context()
    page = context.new_page()
    try:
        answer = page.goto(access.link)
        assert answer.status == 409
        expect(page.locator("body")).to_contain_text("Session already in use")
    finally:
        context.close()


def test_no_secret_found_in_the_notebook_opens_the_tunnels_own_address(
    visit, node, agent, access
):
    found = collected_in_the_notebook(visit, node.session_url(access.session_id))
    assert len(found) > 100
    # Should the collector miss Jupyter's own token: it is no key to the gate either.
    candidates = {*found, agent.jupyter_token(), access.token}
    target = f"{agent.gate_url}/s/{access.session_id}/api/contents"
    client = requests.Session()

    for candidate in candidates:
        for scheme in ("token", "Bearer"):
            answer = client.get(
                target,
                headers={
                    "Authorization": f"{scheme} {candidate}".encode(
                        "latin-1", "replace"
                    )
                },
            )
            assert answer.status_code == 403, (scheme, candidate)
        assert client.get(target, params={"token": candidate}).status_code == 403, (
            candidate
        )


def collected_in_the_notebook(visit, base):
    """Runs the collector in the renter's own notebook and fetches what it wrote."""
    run_cell(visit.page, 1, says="collected")
    return visit.page.evaluate(
        "async url => (await fetch(url)).json()", f"{base}/files/found.json"
    )


def test_the_renters_page_leads_to_jupyterlab(chromium, node, agent, visit, access):
    node.release(access.token)
    context = chromium.new_context()
    page = context.new_page()
    try:
        page.goto(f"{node.control_url}/renter/")
        with context.expect_page() as opened:
            page.get_by_role("button", name="Connect").click(timeout=2 * PAGE_MS)
        lab = opened.value
        expect(lab.locator(".jp-LauncherCard").first).to_be_visible(timeout=PAGE_MS)
        assert lab.url.startswith(f"{node.session_url(agent.session_id)}/lab")
    finally:
        context.close()
