#!/usr/bin/env python3
"""Records how Chromium loads JupyterLab from the session's image: writes bench/data/jupyterlab-page.json.

record.py    run with the tests' Python (`docker/setup.sh test`), with the image built (`docker/jupyter/build.sh`)

The second load is kept, for which the server is warm and the browser's cache is empty. For each request: its path, the
answer that it was sent after, how much later, how long the server took to its first byte, and how many bytes came.
"""

import json
import os
import shutil
import sys
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docker/tests"))

from jupyter_container import JupyterContainer  # noqa: E402
from loopback_gate import LoopbackGate  # noqa: E402

BASE_URL = "/s/00000000-0000-4000-8000-000000000001/"
TIMINGS = """() => performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))
    .map(e => ({url: e.name, start: e.fetchStart, sent: e.requestStart, first: e.responseStart, end: e.responseEnd,
                bytes: e.encodedBodySize}))"""


def main():
    with JupyterContainer("runit-jupyter", f"record-{uuid.uuid4()}", BASE_URL) as jupyter:
        jupyter.wait_until_ready()
        with LoopbackGate(jupyter.port, jupyter.token) as gate:
            page = f"http://127.0.0.1:{gate.port}{BASE_URL}lab?reset"
            load(page)
            entries = load(page)
    record = [request for request in relate(entries)]
    path = ROOT / "bench/data/jupyterlab-page.json"
    path.write_text(
        "[\n" + ",\n".join(json.dumps(request) for request in record) + "\n]\n"
    )
    print(
        f"{len(record)} requests, {sum(request['bytes'] for request in record)} bytes, "
        f"{max(entry['end'] for entry in entries):.0f} ms"
    )


def load(url):
    args = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=args
        )
        page = browser.new_page()
        page.goto(url)
        page.locator(".jp-LauncherCard").first.wait_for(timeout=60_000)
        page.wait_for_load_state("networkidle")
        entries = page.evaluate(TIMINGS)
        browser.close()
    return entries


def relate(entries):
    """In the order of sending; a request that queued for a connection waits for what it waited for before it queued."""
    entries = sorted(
        (entry for entry in entries if entry["url"].startswith("http") and entry["sent"] > 0),
        key=lambda entry: entry["start"],
    )
    for entry in entries:
        before = [
            (other["end"], number)
            for number, other in enumerate(entries)
            if 0 < other["end"] <= entry["start"]
        ]
        end, after = max(before, default=(0, None))
        url = urlsplit(entry["url"])
        yield {
            "path": url.path.removeprefix(BASE_URL.rstrip("/"))
            + (f"?{url.query}" if url.query else ""),
            "after": after,
            "gap_us": round((entry["start"] - end) * 1000),
            "server_us": round((entry["first"] - entry["sent"]) * 1000),
            "bytes": entry["bytes"],
        }


if __name__ == "__main__":
    main()
