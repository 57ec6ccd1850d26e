"""Rentals under host names of their own, in Chromium, which takes whatever ends in `.localhost` for this machine."""

import re
import secrets

import pytest
import requests
from playwright.sync_api import expect

from house import CONTAINER_SECONDS, Agent, Node, eventually
from sites import Site
from test_browser_works_and_learns_no_secret import (
    PAGE_MS,
    SHELL_SECONDS,
    Visit,
    open_notebook,
    run_cell,
)

MAIN = "gateway.localhost"
SESSIONS = "notebooks.localhost"
JAVASCRIPT = [("Content-Type", "text/javascript")]
PIXEL = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    node = Node(
        tmp_path_factory.mktemp("node"), {"gateway.sessions_host": SESSIONS}
    )
    node.gateway_url = f"http://{MAIN}:{node.address[1]}"
    node.settings["gateway.public_url"] = node.gateway_url
    try:
        yield node.start()
    finally:
        node.stop()


@pytest.fixture
def provider():
    site = Site()
    yield site
    site.close()


@pytest.fixture
def context(chromium):
    context = chromium.new_context()
    yield context
    context.close()


def origin_of(node):
    return re.compile(rf"http://[a-z2-7]{{26}}\.{SESSIONS}:{node.address[1]}/s/.*")


def enter(context, node, session_id):
    """A page in a new rental of the session; its origin."""
    page = context.new_page()
    access = node.request(session_id)
    page.goto(access.link)
    expect(page).to_have_url(origin_of(node))
    return page, page.evaluate("location.origin"), access


def test_jupyterlab_works_there(chromium, node, agent):
    visit = Visit(chromium)
    page = visit.page
    try:
        access = node.request(agent.session_id)
        page.goto(access.link)
        page.locator(".jp-LauncherCard", has_text="Terminal").click(timeout=PAGE_MS)
        expect(page).to_have_url(origin_of(node))
        terminal = page.locator(".jp-Terminal-body.xterm")
        expect(terminal).to_be_visible(timeout=PAGE_MS)
        terminal.click()
        page.keyboard.type("whoami > /workspace/from-terminal\n")
        base = f"{page.evaluate('location.origin')}/s/{access.session_id}"
        open_notebook(page, base)
        run_cell(page, 0, says="42")

        def written():
            url = f"{base}/api/contents/from-terminal?content=1"
            file = page.evaluate("async url => (await fetch(url)).json()", url)
            return file.get("content") == "jupyteruser\n"

        eventually("the terminal's file is there", written, SHELL_SECONDS)
        assert access.token not in page.url
        assert visit.errors == []
        assert visit.failed == []
        assert page.evaluate("[originAgentCluster, document.cookie.includes('runit')]") == [True, False]
        page.goto(access.link)
        expect(page.locator("#jp-main-dock-panel")).to_be_visible(timeout=PAGE_MS)
        node.release(access.token)
    finally:
        visit.context.close()


def test_the_renters_page_leads_there(chromium, node, agent, context):
    eventually(
        "the session is free",
        lambda: agent.session_id in node.free_sessions(),
        CONTAINER_SECONDS,
    )
    page = context.new_page()
    page.goto(f"{node.control_url}/renter/")
    with context.expect_page() as opened:
        page.get_by_role("button", name="Connect").click(timeout=PAGE_MS)
    lab = opened.value
    # The renter's page is another site here, and is believed all the same: no other page can name it as where it comes from.
    expect(lab.locator(".jp-LauncherCard").first).to_be_visible(timeout=PAGE_MS)
    expect(lab).to_have_url(origin_of(node))
    server = re.compile(rf"http://[a-z2-7]{{26}}\.{SESSIONS}:.*/s/{agent.session_id}/\?token=.*")
    expect(page.locator("#vscode-url")).to_have_text(server)


def test_a_service_worker_does_not_live_to_see_the_next_rental(node, provider, context):
    provider.pages["sw.js"] = (
        [*JAVASCRIPT, ("Service-Worker-Allowed", "/")],
        b"""addEventListener("activate", (event) => event.waitUntil(clients.claim()));
        addEventListener("fetch", (event) => event.respondWith(
            new Response("<title>mine</title>", { headers: { "Content-Type": "text/html" } })));""",
    )
    registered = node.register(provider.url)
    session_id = registered["sessionId"]
    page, origin, access = enter(context, node, session_id)
    base = f"/s/{session_id}/"
    at_root = page.evaluate(
        "url => navigator.serviceWorker.register(url, { scope: '/' }).then(() => 'registered', error => error.name)",
        f"{base}sw.js",
    )
    assert at_root == "SecurityError"
    page.evaluate(
        """async url => {
            const controlled = new Promise(done => navigator.serviceWorker.oncontrollerchange = done);
            await navigator.serviceWorker.register(url);
            await controlled;
            localStorage.setItem("left", "behind");
        }""",
        f"{base}sw.js",
    )
    page.goto(f"{origin}{base}lab")
    expect(page).to_have_title("mine")

    node.release(access.token)
    refresh(node, registered, provider)
    page, next_origin, access = enter(context, node, session_id)

    assert next_origin != origin
    expect(page).to_have_title("page")
    left = "navigator.serviceWorker.getRegistrations().then(all => [all.length, localStorage.length])"
    assert page.evaluate(left) == [0, 0]
    node.release(access.token)


def refresh(node, registered, provider):
    """The provider says that the workspace is a fresh one."""
    answer = requests.put(
        f"{node.control_url}/provider/session/{registered['sessionId']}/tunnel",
        json={"publicUrl": provider.url, "token": secrets.token_hex(8)},
        headers={"Authorization": f"Bearer {registered['providerSecret']}"},
        timeout=10,
    )
    assert answer.json()["status"] == "READY"


def test_a_page_reaches_nothing_of_a_rental_beside_it(node, provider, context):
    ids = [node.register(provider.url)["sessionId"] for _ in range(2)]
    page, _, _ = enter(context, node, ids[0])
    other_page, other, _ = enter(context, node, ids[1])
    other_page.evaluate("localStorage.setItem('secret', '1')")
    target = f"{other}/s/{ids[1]}/lab"

    read = """async url => {
        const tried = {};
        const attempt = async (name, run) => {
            try { tried[name] = await run(); } catch (error) { tried[name] = error.name; }
        };
        await attempt("fetch", async () => (await fetch(url, { credentials: "include" })).text());
        await attempt("image", () => new Promise((done) => {
            const image = new Image();
            image.onload = () => done("loaded");
            image.onerror = () => done("error");
            image.src = url.replace("lab", "pixel.png");
        }));
        await attempt("frame", () => new Promise((done) => {
            const frame = document.createElement("iframe");
            frame.onload = () => { try { done(frame.contentDocument?.title ?? "nothing"); } catch (error) { done(error.name); } };
            frame.src = url;
            document.body.append(frame);
        }));
        await attempt("storage", () => localStorage.getItem("secret"));
        return tried;
    }"""
    provider.pages["pixel.png"] = ([("Content-Type", "image/gif")], PIXEL)
    seen = page.evaluate(read, target)
    assert seen == {"fetch": "TypeError", "image": "error", "frame": "nothing", "storage": None}
    assert page.evaluate("async url => (await fetch(url)).ok", f"/s/{ids[0]}/pixel.png")

    with context.expect_page() as opened:
        page.evaluate("url => { window.other = open(url); }", target)
    expect(opened.value).to_have_title("page")
    assert page.evaluate("window.other.closed"), "no handle on a window of another origin"


def test_a_page_sets_no_cookie_for_a_rental_beside_it(node, provider, context):
    ids = [node.register(provider.url)["sessionId"] for _ in range(2)]
    own = f"runit-{ids[1]}"
    variants = [
        f"tossed0=1; Domain={SESSIONS}",
        f"tossed1=1; Domain=.{SESSIONS}; Path=/",
        "tossed2=1; Domain=localhost",
        f"tossed3=1; DOMAIN = {SESSIONS.upper()} ; Path=/s/{ids[1]}/",
        f"tossed4=1;domain={SESSIONS};SameSite=None",
        f"tossed5=1; Domain={MAIN}",
        f"tossed6=1; Path=/s/{ids[1]}/; Domain={SESSIONS}; HttpOnly",
        f"{own}=tossed7; Domain={SESSIONS}; Path=/",
        f"{own}=tossed8; Path=/s/{ids[1]}/",
        "__Host-tossed9=1; Path=/; Secure",
        f"__Secure-tossed10=1; Domain={SESSIONS}; Secure",
        f"=tossed11; Domain={SESSIONS}",
    ]
    provider.pages["cookies"] = (
        [("Content-Type", "text/html"), *(("Set-Cookie", one) for one in variants)],
        b"set",
    )
    page, origin, _ = enter(context, node, ids[0])
    page.goto(f"{origin}/s/{ids[0]}/cookies")
    expect(page.locator("body")).to_have_text("set")

    other_page, other, access = enter(context, node, ids[1])
    assert "tossed" not in other_page.evaluate("document.cookie")
    provider.requests.clear()
    other_page.reload()
    assert "tossed" not in provider.cookies_seen()
    assert not [one for one in context.cookies(other) if "tossed" in str(one)]

    # What a page's script sets for the name above both, only a public suffix or TLS can prevent; it spoils nothing.
    page.evaluate(
        "([name, host]) => { document.cookie = `${name}=tossed12; domain=${host}; path=/s/`; }",
        [own, SESSIONS],
    )
    provider.requests.clear()
    assert other_page.reload().status == 200
    assert "tossed" not in provider.cookies_seen(), "nor does our name reach the provider"
    assert other_page.goto(access.link).status == 200
