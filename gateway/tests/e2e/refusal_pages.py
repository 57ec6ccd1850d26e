"""The gateway's own pages, each brought about by what leads to it, for the tests and the screenshots."""

import contextlib

import wire
from house import HTTP_SECONDS, renter
from sites import Site

NOBODYS = "00000000-0000-4000-8000-000000000000"
ELSEWHERE = "127.0.0.9"


def visit_all(page, node, provider):
    """Leads `page` from one to the next: `(name, status)` of the one that it shows."""
    yield "link-expired", page.goto(f"{node.gateway_url}/access/{NOBODYS}").status
    with rented(node, provider) as access:
        yield "link-in-use", page.goto(access.link).status
    with rented(node, provider, ELSEWHERE) as access:
        yield "link-address-changed", page.goto(access.link).status
    with offered(node, provider) as access:
        page.goto(access.link)
        wire.download(node, access.session_id, access.token)
        yield "cap-reached", page.goto(f"{node.session_url(access.session_id)}/lab").status
    with offered(node, provider) as access, contextlib.closing(Site()) as foreign:
        page.goto(f"http://localhost:{foreign.port}/page")
        with page.expect_navigation() as asked:
            page.evaluate("link => { location.href = link; }", access.link)
        yield "link-asks-first", asked.value.status
    with offered(node, provider) as access:
        # What this browser has from when it was elsewhere.
        browser = renter(address=ELSEWHERE)
        opened = browser.get(access.link, headers={"Accept": "text/html"}, timeout=HTTP_SECONDS)
        assert opened.status_code == 200, opened.text
        page.context.add_cookies(
            [{"name": cookie.name, "value": cookie.value, "url": node.gateway_url} for cookie in browser.cookies]
        )
        yield "link-asks-to-move", page.goto(access.link).status


@contextlib.contextmanager
def offered(node, provider):
    session = node.register(provider.url)
    try:
        yield node.request(session["sessionId"])
    finally:
        node.deregister(session)


@contextlib.contextmanager
def rented(node, provider, address="127.0.0.1"):
    """A session that was opened in another browser, at `address`."""
    with offered(node, provider) as access:
        assert renter(address=address).get(access.link, timeout=HTTP_SECONDS).status_code == 200
        yield access
