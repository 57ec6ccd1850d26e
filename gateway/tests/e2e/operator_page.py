"""An operator's browser, and what the tests and the screenshots of its page have in common."""

import requests

import house

KEY = "the operator's key of a test"
NARROW = {"width": 360, "height": 640}


class OperatorPage:
    """A browser of its own on the operator's page; what its console says is an error, but for refused calls."""

    def __init__(self, browser, node, init_script="", **options):
        self.context = browser.new_context(**options)
        self.context.add_init_script(init_script)
        self.page = self.context.new_page()
        self.errors = []
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{node.admin_url}/")

    def hear(self, message):
        # Chromium reports each answer of status 401, which is how the page learns that nobody has signed in.
        if message.type == "error" and "status of 401" not in message.text:
            self.errors.append(message.text)

    def locator(self, *arguments, **options):
        return self.page.locator(*arguments, **options)

    def sign_in(self, key=KEY):
        self.page.get_by_label("Operator key", exact=True).fill(key)
        self.page.get_by_role("button", name="Sign in").click()

    def row(self, session_id):
        return self.page.locator(f"tr[data-id='{session_id}']")

    def count(self, name):
        return self.page.locator(".count", has_text=name).locator(".total")

    def close(self):
        self.context.close()


def make_key(node, role):
    answer = requests.post(
        f"{node.admin_url}/admin/v1/keys",
        json={"name": "night shift", "role": role},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=house.HTTP_SECONDS,
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def guess(node):
    """Tries a token that opens nothing."""
    link = f"{node.gateway_url}/access/00000000-0000-4000-8000-000000000000"
    assert requests.get(link, timeout=house.HTTP_SECONDS).status_code == 403
