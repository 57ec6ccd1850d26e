"""Both pages with a thousand sessions: small, painted at once, and never stuck.

The machine is shared, so a page that is quick is quick in one of several visits; one that is slow is in none.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from playwright.sync_api import expect

from house import HTTP_SECONDS
from operator_page import KEY, OperatorPage

PAGE_MS = 60_000
TRY_SECONDS = 120
SESSIONS = 1_000
PROVIDERS = 250
REGISTER_AT_ONCE = 8
LARGEST_BYTES = 100_000
LONGEST_TASK_MS = 100
FIRST_PAINT_MS = 200

# Tasks of over 50 ms are told by the browser.
WATCH = """window.long = [];
new PerformanceObserver(list => window.long.push(...list.getEntries().map(one => one.duration)))
    .observe({ type: "longtask", buffered: true });"""

PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"

# When the list's first item has been drawn: a frame after the one that it is in.
WATCH_LIST = """new MutationObserver((_, watch) => {
    if (document.querySelector("#sessions > li")) {
        watch.disconnect();
        requestAnimationFrame(() => requestAnimationFrame(() => { window.listed = performance.now(); }));
    }
}).observe(document, { childList: true, subtree: true });"""

# A node keeps 30 refusals of a network in a minute, so ten thousand events come from a stream of the browser's own.
STREAM = """window.EventSource = class extends EventTarget {
    constructor() { super(); window.stream = this; queueMicrotask(() => this.onopen?.()); }
    close() {}
};"""

BURST = """async () => {
    for (let at = 1; at <= 10_000; at += 1) {
        const event = { place: 1e6 + at, at: "2026-11-22T08:00:00.000Z", kind: "RATE_LIMITED", address: `10.0.0.${at}` };
        window.stream.dispatchEvent(new MessageEvent("event", { data: JSON.stringify(event) }));
        if (at % 100 === 0) await new Promise(resume => setTimeout(resume));
    }
    await new Promise(resume => requestAnimationFrame(() => requestAnimationFrame(resume)));
}"""


@pytest.fixture(scope="module")
def node_settings():
    return {"gateway.operator_key": KEY, "control.provider_silent_seconds": 3600}


@pytest.fixture(scope="module")
def fleet(node):
    """A thousand sessions whose agents tell what their containers use."""
    with ThreadPoolExecutor(REGISTER_AT_ONCE) as pool, requests.Session() as client:
        client.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=REGISTER_AT_ONCE))
        list(pool.map(lambda number: register(node, client, number), range(SESSIONS)))


def register(node, client, number):
    offer = {
        "providerId": f"provider-{number % PROVIDERS}",
        "publicUrl": "http://127.0.0.1:9",
        "token": "upstream-token",
        "hardware": {"gpu": f"GPU {number}", "cores": 8, "memoryBytes": 32_000_000_000},
        "pricing": {"perHour": SESSIONS - number, "currency": "EUR"},
    }
    told = client.post(f"{node.control_url}/provider/session", json=offer, timeout=HTTP_SECONDS)
    assert told.status_code == 200, told.text
    limits = {"millicores": 8000, "memoryBytes": 32_000_000_000, "processes": 100}
    report = {"millicores": 1500, "memoryBytes": 4_000_000_000, "processes": 20, "limits": limits}
    beaten = client.post(
        f"{node.control_url}/provider/heartbeat",
        json={"sessionId": told.json()["sessionId"], "report": report},
        headers={"Authorization": f"Bearer {told.json()['providerSecret']}"},
        timeout=HTTP_SECONDS,
    )
    assert beaten.status_code == 200, beaten.text


def in_one_of_several(what, limit_ms, measure):
    """Measures until one is within the limit."""
    deadline = time.monotonic() + TRY_SECONDS
    figures = [round(measure())]
    while figures[-1] >= limit_ms:
        assert time.monotonic() < deadline, f"{what}: {figures} ms, never under {limit_ms}"
        figures.append(round(measure()))
    print(f"{what}: {figures} ms")


def is_small(weights):
    size, files = weights[0]
    print(f"{size} bytes in {files} files")
    assert 10_000 < size < LARGEST_BYTES
    assert files <= 16


def weight(page):
    """Bytes on the wire of all that the page has loaded but its streams and calls, and how many files that is."""
    return page.evaluate(
        """() => {
            const files = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
                .filter(({ initiatorType }) => initiatorType !== "fetch");
            return [files.reduce((sum, { transferSize }) => sum + transferSize, 0), files.length];
        }"""
    )


@pytest.fixture
def few(node):
    offers = [node.register("http://127.0.0.1:9", hardware={"gpu": f"GPU {number}"}) for number in range(20)]
    yield len(offers)
    for session in offers:
        node.deregister(session)


def test_the_list_is_small_and_painted_at_once(chromium, node, few):
    weights, listed = [], []

    def first_paint():
        context = chromium.new_context()
        context.add_init_script(WATCH_LIST)
        page = context.new_page()
        page.goto(f"{node.control_url}/renter/")
        expect(page.locator("#sessions > li")).to_have_count(few, timeout=PAGE_MS)
        paint = page.wait_for_function(PAINT).json_value()
        listed.append(round(page.wait_for_function("window.listed").json_value()))
        weights.append(weight(page))
        context.close()
        return paint

    in_one_of_several("first paint", FIRST_PAINT_MS, first_paint)
    print(f"the list is drawn after {listed} ms")
    is_small(weights)


def test_the_list_of_a_thousand_sessions_is_smooth(chromium, node, fleet):
    listed = []

    def longest():
        context = chromium.new_context(locale="de-DE")
        context.add_init_script(WATCH + WATCH_LIST)
        page = context.new_page()
        page.goto(f"{node.control_url}/renter/")
        items = page.locator("#sessions > li")
        expect(page.locator("#status")).to_have_text("1.000 sessions are free.", timeout=PAGE_MS)
        expect(items).to_have_count(SESSIONS, timeout=PAGE_MS)
        page.get_by_label("Sort by").select_option("price")
        expect(items.first).to_contain_text(f"GPU {SESSIONS - 1}", timeout=PAGE_MS)
        expect(items.first).to_contain_text("1,00\N{NO-BREAK SPACE}€ an hour")
        page.get_by_label("Find").fill("gpu 500")
        expect(items).to_have_count(1, timeout=PAGE_MS)
        page.get_by_label("Find").fill("")
        expect(items).to_have_count(SESSIONS, timeout=PAGE_MS)
        listed.append(round(page.evaluate("window.listed")))
        longest = page.evaluate("Math.max(0, ...window.long)")
        context.close()
        return longest

    in_one_of_several("longest task of the list", LONGEST_TASK_MS, longest)
    print(f"the first of {SESSIONS} sessions is drawn after {listed} ms")


def test_the_dashboard_of_a_thousand_sessions_and_ten_thousand_events_is_smooth(chromium, node, fleet):
    weights = []

    def longest():
        page = OperatorPage(chromium, node, init_script=STREAM + WATCH)
        page.sign_in()
        rows = page.locator("#sessions-table tbody tr")
        expect(rows).to_have_count(50, timeout=PAGE_MS)
        expect(page.locator("#sessions-told")).to_have_text(re.compile("1 to 50 of 1,000"))
        expect(page.locator("#containers-told")).to_contain_text("1,000 of 1,000")
        expect(page.locator("#containers-processor")).to_contain_text("1,500 cores of 8,000 cores")
        expect(page.locator("#providers-told")).to_contain_text(f"{PROVIDERS} up")
        page.page.evaluate(BURST)
        events = page.locator("#events > li")
        expect(events.first).to_contain_text("10.0.0.10000", timeout=PAGE_MS)
        expect(events).to_have_count(200)
        page.page.get_by_role("button", name="Next sessions").click()
        expect(page.locator("#sessions-told")).to_have_text(re.compile("51 to 100"), timeout=PAGE_MS)
        for order in ("usage descending", "registeredAt"):
            page.locator("#sessions-sort").select_option(order)
            expect(page.locator("#sessions-told")).to_have_text(re.compile("1 to 50"), timeout=PAGE_MS)
        expect(rows).to_have_count(50)
        longest = page.page.evaluate("Math.max(0, ...window.long)")
        weights.append(weight(page.page))
        assert page.errors == []
        page.close()
        return longest

    in_one_of_several("longest task of the dashboard", LONGEST_TASK_MS, longest)
    is_small(weights)


def test_the_list_of_providers_has_pages(chromium, node, fleet):
    page = OperatorPage(chromium, node)
    page.sign_in()
    names = page.locator("#providers-table tbody th")
    expect(names).to_have_count(50, timeout=PAGE_MS)
    first = set(names.all_inner_texts())
    next_page = page.page.get_by_role("button", name="Next providers")
    for _ in range(PROVIDERS // 50):
        if next_page.is_enabled():
            next_page.click()
    expect(next_page).to_be_disabled()
    assert first.isdisjoint(names.all_inner_texts())
    page.close()
