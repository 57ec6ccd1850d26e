"""Pages of others in the renter's browser: what they cannot do with his cookie, and with links of their own."""

import pytest
from playwright.sync_api import expect

from house import renter
from sites import Site

PAGE_MS = 60_000


@pytest.fixture
def provider():
    site = Site()
    yield site
    site.close()


@pytest.fixture
def evil():
    site = Site()
    yield site
    site.close()


@pytest.fixture
def context(chromium):
    context = chromium.new_context()
    yield context
    context.close()


ATTACK = """async ([url, name]) => {
    const settled = [];
    for (const method of ["POST", "PUT", "DELETE"]) {
        settled.push(fetch(`${url}?${name}-${method}`, { method, credentials: "include", body: "x" }).catch(() => 0));
    }
    settled.push(fetch(`${url}?${name}-no-cors`, {
        method: "POST", mode: "no-cors", credentials: "include", body: "x" }).catch(() => 0));
    settled.push(new Promise((done) => {
        const socket = new WebSocket(`${url.replace("http", "ws")}?${name}-websocket`);
        socket.onopen = () => done("open");
        socket.onclose = () => done("closed");
    }));
    const form = document.createElement("form");
    Object.assign(form, { method: "post", action: `${url}?${name}-form`, target: "answer" });
    const frame = document.createElement("iframe");
    frame.name = "answer";
    document.body.append(frame, form);
    settled.push(new Promise((done) => { frame.onload = () => done("loaded"); }));
    form.submit();
    return (await Promise.all(settled)).at(-2);
}"""


def test_a_foreign_page_writes_nothing_and_opens_no_websocket(node, provider, evil, context):
    """On another port of the same host it is the same site, so the cookie goes with what it sends."""
    session_id = node.register(provider.url)["sessionId"]
    page = context.new_page()
    page.goto(node.request(session_id).link)
    target = f"{node.session_url(session_id)}/api/contents"
    own = "async url => (await fetch(url, { method: 'POST', body: 'x' })).status"
    assert page.evaluate(own, target) == 200, "the rental's own page may"

    sandbox = f"<!doctype html><iframe id=sandbox sandbox='allow-scripts allow-forms' src='{evil.url}/inner'></iframe>"
    evil.pages["outer"] = ([("Content-Type", "text/html")], sandbox.encode())
    sites = {
        "same-site": f"{evil.url}/page",
        "cross-site": f"http://evil.localhost:{evil.port}/page",
        "null": f"{evil.url}/outer",
    }
    for name, url in sites.items():
        provider.requests.clear()
        page.goto(url)
        frame = page.frames[1] if name == "null" else page.main_frame
        if name == "null":
            frame.wait_for_load_state()
            assert frame.evaluate("origin") == "null"
        assert frame.evaluate(ATTACK, [target, name]) == "closed"
        assert provider.requests == [], name


def test_a_foreign_page_that_leads_into_a_session_is_asked_about(node, provider, evil, context):
    session_id = node.register(provider.url)["sessionId"]
    access = node.request(session_id)
    evil.pages["lure"] = (
        [("Content-Type", "text/html")],
        f"<!doctype html><a href='{access.link}'>prizes</a><img src='{access.link}'>".encode(),
    )
    page = context.new_page()
    page.goto(f"http://evil.localhost:{evil.port}/lure")
    page.get_by_text("prizes").click()
    expect(page.get_by_role("heading")).to_have_text("Open this notebook?")
    assert context.cookies() == []

    page.get_by_role("button", name="Open the notebook").click()

    expect(page).to_have_url(f"{node.session_url(session_id)}/lab", timeout=PAGE_MS)
    expect(page).to_have_title("page")
    assert renter().get(access.link, allow_redirects=False).status_code == 409
