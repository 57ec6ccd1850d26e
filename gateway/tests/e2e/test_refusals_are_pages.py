"""What the gateway says to a person in Chromium: each page says what to do, leads on, and can be read by everybody."""

import pytest
from playwright.sync_api import expect

from operator_page import NARROW
from refusal_pages import visit_all
from test_renters_page import is_accessible

PAGE_MS = 60_000
SAYS = {
    "link-expired": (403, "Invalid or expired token", "Ask for a new one"),
    "link-in-use": (409, "Session already in use", "go on there"),
    "link-address-changed": (403, "IP mismatch", "go on from here"),
    "cap-reached": (429, "Daily bandwidth cap reached", "The next bytes come free in about 24 hours"),
    "link-asks-to-move": (403, "IP mismatch", "files and kernels stay"),
    "link-asks-first": (200, "Open this notebook?", "close this page"),
}


@pytest.fixture(scope="module")
def node_settings():
    return {"quota.cap_bytes": 5_000_000}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_page_says_what_to_do_and_is_accessible(chromium, node, provider, scheme):
    context = chromium.new_context(color_scheme=scheme)
    page = context.new_page()
    blocked = []
    page.on("console", lambda message: blocked.append(message.text) if "Policy" in message.text else None)
    seen = {}
    for name, status in visit_all(page, node, provider):
        title, advice = page.locator("h1").inner_text(), page.locator("main").inner_text()
        seen[name] = status
        assert (status, True, True) == (SAYS[name][0], SAYS[name][1] in title, SAYS[name][2] in advice), advice
        is_accessible(page)
        page.set_viewport_size(NARROW)
        is_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], name
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(246, 247, 249)", "dark": "rgb(20, 23, 27)"}[scheme], name
    assert set(seen) == set(SAYS)
    assert blocked == [], "the page's own policy lets its style through"
    context.close()


def test_a_refusal_leads_to_the_renters_page(chromium, node):
    page = chromium.new_page()
    page.goto(f"{node.gateway_url}/nothing")
    page.get_by_role("link", name="To the renter's page").click()
    expect(page).to_have_url(f"{node.control_url}/renter/", timeout=PAGE_MS)
    page.close()
