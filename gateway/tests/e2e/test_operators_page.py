"""The operator's page in Chromium, against the running system: sign in, watch, act, and what others cannot do."""

import re

import pytest
import requests
from playwright.sync_api import expect

from house import HTTP_SECONDS, Heart, eventually, renter
from operator_page import KEY, NARROW, OperatorPage, guess, make_key
from sites import Site
from test_renters_page import is_accessible

PAGE_MS = 60_000


@pytest.fixture(scope="module")
def node_settings():
    return {"gateway.operator_key": KEY}


@pytest.fixture
def page(chromium, node):
    page = OperatorPage(chromium, node)
    yield page
    page.close()


@pytest.fixture
def rented(node, provider):
    """A session that a renter holds: `(session, client)`."""
    heart = Heart(node, node.register(provider.url, hardware={"memoryBytes": 8_000_000_000}))
    access = node.request(heart.session_id)
    client = renter(access.token)
    status = f"{node.session_url(heart.session_id)}/api/status"
    assert client.get(status).status_code == 200
    yield heart.session_id, lambda: client.get(status).status_code
    heart.stop()
    node.deregister(heart.session)


def test_signing_in_shows_the_fleet_and_signing_out_hides_it(node, rented, page):
    expect(page.locator("#sign-in")).to_be_visible(timeout=PAGE_MS)
    page.sign_in("a key that opens nothing")
    expect(page.locator("#problem")).to_contain_text("opens nothing", timeout=PAGE_MS)
    expect(page.locator("#dashboard")).to_be_hidden()
    page.sign_in()
    expect(page.row(rented[0])).to_contain_text("rented out", timeout=PAGE_MS)
    expect(page.row(rented[0])).to_contain_text("127.0.0.1")
    expect(page.locator("#providers-table")).to_contain_text("e2e")
    expect(page.locator("#providers-table [data-health]")).to_have_text("up")
    expect(page.count("Active sessions")).to_have_text("1 of 1")
    page.page.reload()
    expect(page.row(rented[0])).to_be_visible(timeout=PAGE_MS)
    assert KEY not in page.page.content()
    assert page.page.evaluate("document.cookie + JSON.stringify({...localStorage, ...sessionStorage})") == "{}"

    cookie = page.context.cookies()[0]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#sign-in")).to_be_visible(timeout=PAGE_MS)
    assert page.context.cookies() == []
    answer = requests.get(
        f"{node.admin_url}/admin/v1/summary",
        cookies={cookie["name"]: cookie["value"]},
        timeout=HTTP_SECONDS,
    )
    assert answer.status_code == 401, "what the cookie stood for has ended, too"
    assert page.errors == []


def test_counts_and_events_move_after_a_wrong_token(node, rented, page):
    page.sign_in()
    invalid = page.count("Invalid access")
    expect(invalid).to_have_text(re.compile(r"\d+"), timeout=PAGE_MS)
    before = int(invalid.inner_text())
    guess(node)
    expect(invalid).to_have_text(str(before + 1), timeout=PAGE_MS)
    plot = page.locator(".count", has_text="Invalid access").get_by_role("img")
    expect(plot).to_have_accessible_name(re.compile(r"At most \d+ in 15 minutes"))
    expect(plot.locator("path")).to_have_attribute("d", re.compile(r"M9[0-9] 30V\d+\.\d\dh0\.8V30z$"))
    newest = page.locator("#events > li").first
    expect(newest).to_contain_text("Invalid access attempt", timeout=PAGE_MS)
    expect(newest).to_contain_text("from 127.0.0.1")
    page.page.get_by_label("Show").select_option("SESSION_LOCKED")
    expect(page.locator("#events")).not_to_contain_text("Invalid access", timeout=PAGE_MS)
    expect(page.locator("#events")).to_contain_text("Session locked")
    assert page.errors == []


def test_sessions_are_found_by_renter_and_sorted_by_data(node, provider, rented, page):
    idle = node.register(provider.url)
    page.sign_in()
    rows = page.locator("#sessions-table tbody tr")
    expect(rows).to_have_count(2, timeout=PAGE_MS)
    expect(rows.first).to_have_attribute("data-id", idle["sessionId"])
    page.page.get_by_label("Sort by").select_option("most data first")
    expect(rows.first).to_have_attribute("data-id", rented[0], timeout=PAGE_MS)
    address = page.page.get_by_label("Renter", exact=True)
    for typed, shown in (("127.0.0.1", 1), ("127.0.", 0), ("", 2)):
        address.fill(typed)
        address.press("Enter")
        expect(rows).to_have_count(shown, timeout=PAGE_MS)
    expect(page.locator("#problem")).to_be_hidden()
    node.deregister(idle)


def test_what_the_container_uses_is_shown_against_its_limits(node, provider, page):
    limits = {"millicores": 2000, "memoryBytes": 4_000_000_000, "processes": 100}
    report = {"millicores": 250, "memoryBytes": 3_900_000_000, "processes": 20, "limits": limits}
    heart = Heart(node, node.register(provider.url), report)
    page.sign_in()
    row = page.row(heart.session_id)
    for words in ("0.25 of 2 cores", "3.90 GB of 4.00 GB memory", "20 of 100 processes"):
        expect(row).to_contain_text(words, timeout=PAGE_MS)
    expect(page.locator("#containers-processor")).to_contain_text("0.25 cores of 2 cores (12.5%)")
    expect(page.locator("#containers-memory .meter")).to_have_attribute("data-level", "full")
    heart.stop()
    node.deregister(heart.session)


def test_the_page_works_by_keyboard_alone(rented, page):
    expect(page.page.get_by_label("Operator key", exact=True)).to_be_focused(timeout=PAGE_MS)
    page.page.keyboard.type(KEY)
    page.page.keyboard.press("Enter")
    expect(page.locator("#sessions-title")).to_be_focused(timeout=PAGE_MS)
    cut = page.row(rented[0]).get_by_role("button", name="Cut…")
    expect(cut).to_be_visible(timeout=PAGE_MS)
    for _ in range(12):
        page.page.keyboard.press("Tab")
        if cut.evaluate("button => button === document.activeElement"):
            break
    expect(cut).to_be_focused()
    page.page.keyboard.press("Enter")
    expect(page.page.get_by_role("button", name="Leave it")).to_be_focused()
    page.page.keyboard.press("Escape")
    expect(cut).to_be_focused()
    page.page.keyboard.press("Enter")
    page.page.keyboard.press("Shift+Tab")
    page.page.keyboard.press("Enter")
    expect(page.row(rented[0])).to_contain_text("being made anew", timeout=PAGE_MS)


def test_a_session_is_cut_from_the_page_after_a_question(rented, page):
    session, status = rented
    page.sign_in()
    cut = page.row(session).get_by_role("button", name="Cut…")
    cut.click(timeout=PAGE_MS)
    page.locator("#confirm").get_by_role("button", name="Leave it").click()
    assert status() == 200
    cut.click()
    page.locator("#confirm").get_by_role("button", name="Cut").click()
    expect(page.row(session)).to_contain_text("being made anew", timeout=PAGE_MS)
    eventually("the renter is refused", lambda: status() == 403, 30)
    expect(page.locator("#events > li", has_text="Session cut").first).to_contain_text(
        "by the configured operator", timeout=PAGE_MS
    )
    expect(page.row(session).get_by_role("button", name="Cut…")).to_be_hidden()
    page.row(session).get_by_role("button", name="Remove…").click()
    page.locator("#confirm").get_by_role("button", name="Remove").click()
    expect(page.row(session)).to_have_count(0, timeout=PAGE_MS)
    assert page.errors == []


def test_a_key_that_may_only_read_sees_no_actions(node, rented, page):
    page.sign_in(make_key(node, "read")["key"])
    expect(page.row(rented[0])).to_be_visible(timeout=PAGE_MS)
    expect(page.locator("#who")).to_contain_text("may only look")
    expect(page.locator("#sessions-table button:visible")).to_have_count(0)
    refused = page.page.evaluate(
        """id => fetch(`/admin/v1/sessions/${id}/cut`, {
            method: "POST", headers: { "Runit-Operator-Page": "1" },
        }).then(answer => answer.status)""",
        rented[0],
    )
    assert refused == 403
    assert rented[1]() == 200


def test_a_revoked_key_ends_what_was_signed_in_with_it(node, page):
    key = make_key(node, "operate")
    page.sign_in(key["key"])
    expect(page.locator("#dashboard")).to_be_visible(timeout=PAGE_MS)
    requests.delete(
        f"{node.admin_url}/admin/v1/keys/{key['keyId']}",
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=HTTP_SECONDS,
    )
    expect(page.locator("#sign-in")).to_be_visible(timeout=PAGE_MS)
    expect(page.locator("#problem")).to_contain_text("sign-in has ended")


def test_after_a_restart_the_page_asks_for_the_key_again(node, page):
    page.sign_in()
    expect(page.locator("#counts")).to_be_visible(timeout=PAGE_MS)
    node.stop()
    expect(page.locator("#problem")).to_contain_text("cannot be reached", timeout=PAGE_MS)
    node.start()
    expect(page.locator("#problem")).to_contain_text("sign-in has ended", timeout=PAGE_MS)
    page.sign_in()
    expect(page.locator("#counts")).to_be_visible(timeout=PAGE_MS)
    expect(page.locator("#problem")).to_be_hidden()


@pytest.mark.parametrize(("host", "answer"), [("127.0.0.1", 403), ("localhost", 401)])
def test_a_foreign_page_does_nothing_with_the_cookie(node, rented, page, host, answer):
    """Another port of the same host is the same site, so the cookie goes with what it sends; to another name it does not."""
    page.sign_in()
    expect(page.row(rented[0])).to_be_visible(timeout=PAGE_MS)
    evil = Site()
    foreign = page.context.new_page()
    foreign.goto(f"http://{host}:{evil.port}/page")
    url = f"{node.admin_url}/admin/v1/sessions/{rented[0]}/cut"
    answers = []
    foreign.on("response", lambda one: answers.append(one.status) if one.url == url else None)
    read = foreign.evaluate(ATTACK, [url, f"{node.admin_url}/admin/v1/sessions"])
    assert read == [False, False, False], "sent with our header, read, streamed"
    # Playwright tells of responses only while it is asked something.
    eventually(
        "form and plain fetch are answered",
        lambda: foreign.evaluate("true") and answers.count(answer) >= 2,
        30,
    )
    assert 200 not in answers
    assert rented[1]() == 200, "the renter works on"
    foreign.close()
    evil.close()


ATTACK = """async ([url, list]) => {
    const done = promise => promise.then(() => true, () => false);
    await done(fetch(url, { method: "POST", mode: "no-cors", credentials: "include" }));
    const withHeader = done(fetch(url, {
        method: "POST", credentials: "include", headers: { "Runit-Operator-Page": "1" } }));
    const read = done(fetch(list, { credentials: "include" }));
    const stream = new Promise(resume => {
        const events = new EventSource(list.replace("sessions", "events/live"), { withCredentials: true });
        events.onopen = () => resume(true);
        events.onerror = () => resume(false);
    });
    const form = document.createElement("form");
    const frame = document.createElement("iframe");
    frame.name = "answer";
    Object.assign(form, { method: "post", action: url, target: "answer" });
    document.body.append(frame, form);
    form.submit();
    return Promise.all([withHeader, read, stream]);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_state_of_the_page_is_accessible(chromium, node, rented, scheme):
    page = OperatorPage(chromium, node, color_scheme=scheme)
    expect(page.locator("#sign-in")).to_be_visible(timeout=PAGE_MS)
    is_accessible(page.page)
    page.sign_in("a key that opens nothing")
    expect(page.locator("#problem")).to_be_visible(timeout=PAGE_MS)
    is_accessible(page.page)
    guess(node)
    page.sign_in()
    expect(page.locator("#events > li.alert").first).to_be_visible(timeout=PAGE_MS)
    expect(page.row(rented[0])).to_be_visible(timeout=PAGE_MS)
    is_accessible(page.page)
    page.row(rented[0]).get_by_role("button", name="Remove…").click()
    is_accessible(page.page)
    page.page.keyboard.press("Escape")
    page.page.set_viewport_size(NARROW)
    is_accessible(page.page)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.errors == []
    page.close()
