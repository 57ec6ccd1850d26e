"""The renter's page in Chromium, against the running system: rent, watch, release, and what can go wrong meanwhile."""

import contextlib
import io
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

import wire
from house import CONTAINER_SECONDS, ControlTap, Heart, eventually, renter
from operator_page import NARROW

PAGE_MS = 60_000
CAP = 40_000_000
ABSENT_SECONDS = 30
PROVIDER_SILENT_SECONDS = 15
# Reconnecting after a stream was refused takes five seconds, a look at the ledger one.
CHANGE_MS = 45_000


@pytest.fixture(scope="module")
def node_settings():
    return {
        "quota.cap_bytes": CAP,
        "control.renter_absent_seconds": ABSENT_SECONDS,
        "control.provider_silent_seconds": PROVIDER_SILENT_SECONDS,
        "control.sweep_interval_ms": 100,
    }


class Visitor:
    """A browser of its own on the renter's page; what its console says is an error of the test's, unless expected."""

    def __init__(self, browser, url, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.errors = []
        self.page.on(
            "console",
            lambda message: (
                self.errors.append(message.text) if message.type == "error" else None
            ),
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{url}/renter/")
        self.state = self.page.locator("#rental-state")
        self.free = self.page.locator("#sessions > li")

    def connect(self):
        """Clicks the first free session; the tab that opens."""
        with self.context.expect_page() as opened:
            self.free.first.get_by_role("button", name="Connect").click(timeout=PAGE_MS)
        # A page behind another draws once a second, and each click waits for some drawing.
        self.page.bring_to_front()
        expect(self.state).to_have_text("In use by you.", timeout=PAGE_MS)
        return opened.value

    def used(self):
        return int(self.page.locator("#meter").get_attribute("aria-valuenow") or 0)

    def token(self):
        return self.page.evaluate("JSON.parse(localStorage['runit.rental']).accessToken")

    def release(self):
        self.page.get_by_role("button", name="Release…").click()
        self.page.locator("#confirm-release").get_by_role("button", name="Release").click()
        expect(self.state).to_have_text("Released. Thank you.")


@pytest.fixture
def visitor(chromium, node):
    visitor = Visitor(chromium, node.control_url)
    yield visitor
    visitor.context.close()


@pytest.fixture
def offered(node, provider):
    """A session of a provider that has no agent: kept alive by its heartbeats as long as `beating`."""
    heart = Heart(node, node.register(provider.url))
    yield heart
    heart.stop()
    node.deregister(heart.session)


def test_a_second_browser_sees_no_free_session_and_is_told_that_the_link_is_in_use(
    chromium, node, offered, visitor
):
    visitor.connect()
    other = Visitor(chromium, node.control_url)
    expect(other.page.locator("#status")).to_contain_text("No session is free")
    answer = other.page.goto(f"{node.gateway_url}/access/{visitor.token()}")
    assert answer.status == 409
    expect(other.page.locator("body")).to_contain_text("Session already in use")
    other.context.close()
    visitor.release()


def test_a_changed_address_is_explained_and_left_behind_by_a_click(chromium, node, offered):
    tap = ControlTap(node.control_url)
    visitor = Visitor(chromium, tap.url)
    visitor.connect()
    token = visitor.token()
    status = f"{node.session_url(offered.session_id)}/api/status"
    tap.move_to("127.0.0.9")
    expect(visitor.state).to_contain_text("network address has changed", timeout=CHANGE_MS)
    assert renter(token, "127.0.0.9").get(status).status_code == 403
    visitor.page.get_by_role("button", name="Go on from this address").click()
    expect(visitor.state).to_have_text("In use by you.", timeout=CHANGE_MS)
    assert renter(token, "127.0.0.9").get(status).status_code == 200
    assert renter(token).get(status).status_code == 403, "the old address is left"
    visitor.release()
    visitor.context.close()
    tap.close()


def test_without_its_secret_a_browser_is_told_what_else_to_do(chromium, node, offered):
    tap = ControlTap(node.control_url)
    visitor = Visitor(chromium, tap.url)
    visitor.connect()
    visitor.page.evaluate(
        """() => {
            const kept = JSON.parse(localStorage["runit.rental"]);
            localStorage["runit.rental"] = JSON.stringify({ ...kept, reconnectSecret: "0".repeat(64) });
        }"""
    )
    visitor.page.reload()
    expect(visitor.state).to_have_text("In use by you.", timeout=CHANGE_MS)
    tap.move_to("127.0.0.9")
    visitor.page.get_by_role("button", name="Go on from this address").click(timeout=CHANGE_MS)
    expect(visitor.state).to_contain_text("no proof", timeout=CHANGE_MS)
    is_accessible(visitor.page)
    visitor.context.close()
    tap.close()


def test_a_cap_is_warned_of_and_told_with_the_time_when_it_frees(node, offered, visitor):
    visitor.connect()
    warning = visitor.page.locator("#usage-warning")
    expect(warning).to_be_empty()
    for share, said in ((81, "More than 80 %"), (96, "More than 95 %")):
        wire.upload_bytes(node, offered.session_id, visitor.token(), CAP * share // 100 - visitor.used())
        expect(warning).to_contain_text(said, timeout=CHANGE_MS)
        assert visitor.used() < CAP
    tally = wire.download(node, offered.session_id, visitor.token())
    assert tally.received > 0
    expect(warning).to_contain_text("The cap is reached", timeout=CHANGE_MS)
    assert visitor.used() == CAP
    expect(visitor.page.locator("#next-free")).to_contain_text(re.compile("in 2[34] hours|within 24"))


def test_a_provider_that_vanishes_is_told_as_the_end(node, offered, visitor):
    visitor.connect()
    offered.stop()
    expect(visitor.state).to_contain_text("not yours any more", timeout=CHANGE_MS)
    expect(visitor.page.get_by_role("button", name="Back to the list")).to_be_visible()


def test_the_page_recovers_when_control_was_restarted(node, offered, visitor):
    visitor.connect()
    node.stop()
    expect(visitor.state).to_contain_text("connection to the server was lost", timeout=CHANGE_MS)
    node.start()
    expect(visitor.state).to_have_text("In use by you.", timeout=CHANGE_MS)
    expect(visitor.page.locator("#status")).to_contain_text("No session is free", timeout=CHANGE_MS)
    visitor.release()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_state_of_the_page_is_accessible(chromium, node, offered, scheme):
    visitor = Visitor(chromium, node.control_url, color_scheme=scheme)
    expect(visitor.free).to_have_count(1, timeout=PAGE_MS)
    is_accessible(visitor.page)
    visitor.connect()
    visitor.page.get_by_text("Use it from elsewhere").click()
    is_accessible(visitor.page)
    visitor.page.get_by_role("button", name="Release…").click()
    is_accessible(visitor.page)
    visitor.page.keyboard.press("Escape")
    visitor.release()
    is_accessible(visitor.page)
    visitor.page.set_viewport_size(NARROW)
    is_accessible(visitor.page)
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    visitor.page.goto(f"{node.control_url}/renter/plain")
    is_accessible(visitor.page)
    assert visitor.errors == []
    visitor.context.close()


def is_accessible(page):
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_the_page_works_by_keyboard_alone(node, offered, visitor):
    expect(visitor.free).to_have_count(1, timeout=PAGE_MS)
    visitor.page.get_by_label("Find").focus()
    visitor.page.keyboard.press("Tab")
    visitor.page.keyboard.press("Tab")
    with visitor.context.expect_page():
        visitor.page.keyboard.press("Enter")
    visitor.page.bring_to_front()
    expect(visitor.page.locator("#rental-title")).to_be_focused(timeout=PAGE_MS)
    expect(visitor.state).to_have_text("In use by you.", timeout=PAGE_MS)
    visitor.release()


def test_without_javascript_two_clicks_lead_there_too(chromium, node, offered):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{node.control_url}/renter/")
    page.wait_for_url("**/renter/plain")
    page.get_by_role("button", name="Connect").click()
    with context.expect_page() as opened:
        page.get_by_role("link", name="Open JupyterLab").click()
    opened.value.wait_for_url(f"{node.session_url(offered.session_id)}/lab")
    context.close()


@pytest.mark.parametrize("workspace", ["ephemeral", "persistent"])
def test_release_says_what_becomes_of_the_files(node, provider, visitor, workspace):
    heart = Heart(node, node.register(provider.url, hardware={"workspace": workspace}))
    visitor.connect()
    visitor.page.get_by_role("button", name="Release…").click()
    says = "is wiped" if workspace == "ephemeral" else "keeps the workspace"
    expect(visitor.page.locator("#confirm-text")).to_contain_text(says)
    visitor.page.locator("#confirm-release").get_by_role("button", name="Keep it").click()
    expect(visitor.state).to_have_text("In use by you.")
    visitor.release()
    heart.stop()
    node.deregister(heart.session)


def test_address_and_snippet_are_copied_by_one_click(offered, visitor):
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visitor.connect()
    visitor.page.get_by_text("Use it from elsewhere").click()
    for source in ("vscode-url", "python-snippet"):
        button = visitor.page.locator(f"[data-copies={source}]")
        button.click()
        expect(button).to_have_text("Copied")
        copied = visitor.page.evaluate("navigator.clipboard.readText()")
        assert copied == visitor.page.locator(f"#{source}").inner_text()
        assert visitor.token() in copied
    visitor.release()


def test_the_list_changes_without_being_asked_for(node, provider, offered, visitor):
    expect(visitor.free).to_have_count(1, timeout=PAGE_MS)
    asked = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    other = node.register(provider.url)
    expect(visitor.free).to_have_count(2, timeout=PAGE_MS)
    node.deregister(other)
    expect(visitor.free).to_have_count(1, timeout=PAGE_MS)
    assert asked == []


def test_the_page_says_that_its_reader_is_there(offered, visitor):
    beat = "setInterval(() => postMessage('beat'), 100);"
    visitor.context.route("**/pulse.js", lambda route: route.fulfill(body=beat, content_type="text/javascript"))
    visitor.connect()
    with visitor.page.expect_response("**/renter/heartbeat", timeout=PAGE_MS) as answer:
        pass
    assert answer.value.status == 200
    visitor.release()


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_for_who_wants_no_motion(chromium, node, offered, motion):
    visitor = Visitor(chromium, node.control_url, reduced_motion=motion)
    visitor.connect()
    moving = visitor.page.evaluate(
        """() => [...document.querySelectorAll("*")].map(element => getComputedStyle(element))
            .filter(({ transitionDuration, animationName }) => transitionDuration !== "0s" || animationName !== "none")
            .length"""
    )
    assert (moving == 0) == (motion == "reduce")
    visitor.release()
    visitor.context.close()


def test_the_statement_says_what_was_used_and_what_the_time_costs(node, provider, visitor):
    # One euro a second.
    pricing = {"perHour": 3600, "currency": "EUR"}
    heart = Heart(node, node.register(provider.url, pricing=pricing))
    visitor.connect()

    def row(name):
        return visitor.page.locator(f"#statement-{name}")

    visitor.page.get_by_text("Statement", exact=True).click()
    expect(row("ended")).to_have_text("not yet")
    expect(row("price")).to_have_text("€3,600.00 an hour")
    token = visitor.token()
    node.release(token)
    known = renter(token).get(f"{node.control_url}/renter/statement").json()
    expect(visitor.state).to_contain_text("not yours any more", timeout=CHANGE_MS)
    expect(row("reference")).to_have_text(known["idempotencyKey"])
    expect(row("ended")).not_to_have_text("not yet")
    expect(row("sum")).to_have_text(f"€{known['seconds']:,}.00")
    visitor.page.reload()
    expect(row("reference")).to_have_text(known["idempotencyKey"], timeout=CHANGE_MS)
    visitor.page.get_by_role("button", name="Back to the list").click()
    expect(row("reference")).to_be_hidden()
    heart.stop()
    node.deregister(heart.session)


# The agent's session comes back to the list after each release, so these two are last.


def test_two_clicks_to_jupyterlab_a_bar_that_moves_and_a_way_out(node, agent, visitor):
    eventually(
        "the session is free",
        lambda: agent.session_id in node.free_sessions(),
        CONTAINER_SECONDS,
    )
    lab = visitor.connect()
    lab.bring_to_front()
    expect(lab.locator(".jp-LauncherCard").first).to_be_visible(timeout=PAGE_MS)
    before = visitor.used()
    assert before > 0, "JupyterLab has been loaded through the gateway"

    base = node.session_url(agent.session_id)
    lab.evaluate(
        """async url => {
            const content = "x".repeat(2_000_000);
            await fetch(url, {
                method: "PUT",
                headers: { "Content-Type": "application/json" },
                body: JSON.stringify({ type: "file", format: "text", content }),
            });
        }""",
        f"{base}/api/contents/mine.txt",
    )
    eventually("the bar has moved", lambda: visitor.used() >= before + 2_000_000, 30)
    eventually(
        "the words say the same",
        lambda: f"{visitor.used() / 1e6:.2f}" in visitor.page.locator("#usage-text").inner_text(),
        30,
    )

    visitor.page.bring_to_front()
    visitor.page.reload()
    expect(visitor.state).to_have_text("In use by you.", timeout=PAGE_MS)
    token = visitor.token()
    visitor.release()
    assert visitor.page.evaluate("localStorage.length") == 0
    assert renter(token).get(f"{base}/api/status").status_code == 403
    eventually(
        "the workspace is a fresh one",
        lambda: agent.session_id in node.free_sessions(),
        CONTAINER_SECONDS,
    )
    assert visitor.errors == []


def test_the_python_snippet_and_the_vscode_address_work_from_elsewhere(node, agent, visitor):
    eventually(
        "the session is free",
        lambda: agent.session_id in node.free_sessions(),
        CONTAINER_SECONDS,
    )
    visitor.connect()
    visitor.page.get_by_text("Use it from elsewhere").click()
    snippet = visitor.page.locator("#python-snippet").inner_text()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet, {})
    assert "42" in printed.getvalue()
    address = visitor.page.locator("#vscode-url").inner_text()
    path, query = address.split("?")
    assert renter().get(f"{path}api/status?{query}").status_code == 200
    visitor.release()
