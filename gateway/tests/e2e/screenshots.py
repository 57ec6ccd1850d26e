#!/usr/bin/env python3
"""Draws docs/screenshots: every page in every state that a person meets, light, dark and narrow.

    screenshots.py [<folder>]       after `.ci/prerequisites` and `cargo build -p runit-gateway`

A node of its own and a provider without an agent are started for it, and stopped.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

import house
import wire
from conftest import CHROMIUM, CHROMIUM_FLAGS
from house import ControlTap, Heart, Node, renter
from operator_page import KEY, NARROW, OperatorPage, guess, make_key
from provider import Provider
from refusal_pages import visit_all
from test_renters_page import CHANGE_MS, Visitor

LARGEST_BYTES = 100_000
COLOURS = 64
NOBODYS_PORT = 9
CAP = 40_000_000
SETTINGS = {
    "gateway.operator_key": KEY,
    "quota.cap_bytes": CAP,
    "control.sweep_interval_ms": 100,
}
WIDE = {"width": 1000, "height": 700}
LOOKS = {
    "light": {"color_scheme": "light", "viewport": WIDE},
    "dark": {"color_scheme": "dark", "viewport": WIDE},
    "narrow": {"color_scheme": "light", "viewport": NARROW},
}
OFFERS = [
    {"hardware": {"gpu": "NVIDIA L4", "cores": 8, "memoryBytes": 32_000_000_000}, "pricing": {"perHour": 0.4, "currency": "EUR"}},
    {"hardware": {"gpu": "NVIDIA H100", "cores": 26, "memoryBytes": 200_000_000_000}, "pricing": {"perHour": 2.9, "currency": "EUR"}},
    {"hardware": {"cores": 2, "memoryBytes": 4_000_000_000, "workspace": "ephemeral"}, "pricing": {"perHour": 0, "currency": "EUR"}},
]

REPORT = {
    "millicores": 1_240,
    "memoryBytes": 1_400_000_000,
    "processes": 23,
    "limits": {"millicores": 2_000, "memoryBytes": 4_000_000_000, "processes": 100},
    "egressBytes": 52_000_000,
    "killedForMemory": 0,
}


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else house.ROOT / "docs/screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as state, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            # Grey text is smaller than coloured.
            executable_path=CHROMIUM, args=[*CHROMIUM_FLAGS, "--disable-lcd-text", "--font-render-hinting=none"]
        )
        node = Node(Path(state), SETTINGS).start()
        provider = Provider()
        try:
            for look, options in LOOKS.items():
                Artist(folder, look, browser, node, provider, options).draw_all()
        finally:
            node.stop()
            provider.close()
            browser.close()


class Artist:
    """Draws all pages in one look."""

    def __init__(self, folder, look, browser, node, provider, options):
        self.folder, self.look, self.browser, self.node = folder, look, browser, node
        self.provider, self.options = provider, options

    def draw_all(self):
        self.draw_empty()
        hearts = [
            Heart(self.node, self.node.register(self.provider.url, **offer), REPORT)
            for offer in OFFERS
        ]
        try:
            self.draw_renter()
            self.draw_operator(hearts)
        finally:
            for heart in hearts:
                heart.stop()
                self.node.deregister(heart.session)

    def draw_empty(self):
        visitor = Visitor(self.browser, self.node.control_url, **self.options)
        expect(visitor.page.locator("#status")).to_contain_text("No session is free")
        self.take(visitor.page, "renter-empty")
        visitor.context.close()

    def draw_renter(self):
        tap = ControlTap(self.node.control_url)
        visitor = Visitor(self.browser, tap.url, **self.options)
        page = visitor.page
        expect(visitor.free).to_have_count(len(OFFERS))
        self.take(page, "renter-list")
        visitor.connect()
        page.get_by_text("Use it from elsewhere").click()
        self.take(page, "renter-session")
        page.get_by_text("Use it from elsewhere").click()
        page.get_by_role("button", name="Release…").click()
        self.take(page, "renter-release", full_page=False)
        page.keyboard.press("Escape")

        tap.move_to("127.0.0.9")
        expect(visitor.state).to_contain_text("address has changed", timeout=CHANGE_MS)
        self.take(page, "renter-address-changed")
        tap.move_to("127.0.0.1")
        page.get_by_role("button", name="Go on from this address").click()
        expect(visitor.state).to_have_text("In use by you.", timeout=CHANGE_MS)

        wire.download(self.node, self.session_of(page), visitor.token())
        expect(page.locator("#usage-warning")).to_contain_text("cap is reached", timeout=CHANGE_MS)
        self.take(page, "renter-cap-reached")

        other = Visitor(self.browser, self.node.control_url, **self.options)
        for name, _ in visit_all(other.page, self.node, self.provider):
            self.take(other.page, name)
        other.page.goto(f"{self.node.control_url}/renter/plain")
        self.take(other.page, "renter-without-javascript")
        other.context.close()

        visitor.release()
        self.take(page, "renter-released")
        page.get_by_role("button", name="Back to the list").click()

        newest = self.node.register(self.provider.url, **OFFERS[0])
        expect(visitor.free).to_have_count(len(OFFERS))
        with visitor.context.expect_page():
            visitor.free.last.get_by_role("button", name="Connect").click()
        page.bring_to_front()
        expect(visitor.state).to_have_text("In use by you.", timeout=CHANGE_MS)
        control, tap.target = tap.target, ("127.0.0.1", NOBODYS_PORT)
        tap.move_to("127.0.0.1")
        expect(visitor.state).to_contain_text("connection to the server was lost", timeout=CHANGE_MS)
        self.take(page, "renter-disconnected")
        tap.target = control
        self.node.deregister(newest)
        expect(visitor.state).to_contain_text("its provider has gone", timeout=CHANGE_MS)
        self.take(page, "renter-ended")
        visitor.context.close()
        tap.close()

    @staticmethod
    def session_of(page):
        return page.evaluate("JSON.parse(localStorage['runit.rental']).sessionId")

    def draw_operator(self, hearts):
        access = self.node.request(hearts[1].session_id)
        renter(access.token).get(f"{self.node.session_url(access.session_id)}/api/status")
        guess(self.node)
        page = OperatorPage(self.browser, self.node, **self.options)
        expect(page.locator("#sign-in")).to_be_visible()
        self.take(page.page, "operator-sign-in")
        page.sign_in("a key that opens nothing")
        expect(page.locator("#problem")).to_be_visible()
        self.take(page.page, "operator-wrong-key")
        page.sign_in()
        row = page.row(access.session_id)
        expect(row).to_contain_text("rented out")
        expect(page.locator("#events > li").first).to_be_visible()
        expect(page.locator("#sessions-table")).not_to_contain_text("not told", timeout=CHANGE_MS)
        self.take(page.page, "operator")
        row.get_by_role("button", name="Cut…").click()
        self.take(page.page, "operator-cut", full_page=False)
        page.close()
        page = OperatorPage(self.browser, self.node, **self.options)
        page.sign_in(make_key(self.node, "read")["key"])
        expect(page.row(access.session_id)).to_contain_text("rented out")
        self.take(page.page, "operator-read-only")
        page.close()
        self.node.release(access.token)

    def take(self, page, state, full_page=True):
        file = self.folder / f"{state}-{self.look}.png"
        page.screenshot(path=file, full_page=full_page, animations="disabled")
        with Image.open(file) as drawn:
            drawn.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
        assert file.stat().st_size < LARGEST_BYTES, f"{file.name}: {file.stat().st_size} bytes"
        print(file.name, file.stat().st_size)


if __name__ == "__main__":
    main()
