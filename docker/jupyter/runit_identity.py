"""Lets in who brings the workspace's secret in a header, and nobody else.

The requests come from RUNIT's gate, which has checked its own secret already and puts this one into every request. So
there is nobody to log in, nothing to remember in a cookie, and no reason to write the secret into a page.
"""

import hmac
import sys

from jupyter_server.auth import IdentityProvider, User
from tornado import web

RENTER = User(username="jupyteruser", name="Renter", display_name="Renter", initials="R")


class HeaderIdentityProvider(IdentityProvider):
    """Accepts ``Authorization: token <secret>``; refuses everything else with 403, static files included.

    Only the redirect from the base URL to ``lab`` is for everybody: Tornado answers it without asking who it is.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Jupyter's own token would be written into every page.
        self.token = ""
        self.updatable_fields = []
        # From standard input, where the entrypoint puts it, because the environment is inherited by kernels.
        self._expected = f"token {sys.stdin.readline().strip()}".encode()
        if self._expected == b"token ":
            raise SystemExit("runit-jupyter: no secret on standard input")

    def get_user(self, handler):
        # Tornado would set an `_xsrf` cookie whenever it renders a page, an error page too. Requests that are
        # authenticated by a header are not checked for it (no browser adds the header by itself).
        handler._xsrf_token = b""
        if not self._is_authentic(handler.request.headers.get("Authorization", "")):
            # Known to be nobody: the error page asks.
            handler.current_user = handler._jupyter_current_user = None
            raise web.HTTPError(403)
        handler._token_authenticated = True
        return RENTER

    def _is_authentic(self, authorization):
        scheme, _, secret = authorization.partition(" ")
        presented = f"{scheme.lower()} {secret}".encode("utf-8", "surrogateescape")
        return hmac.compare_digest(presented, self._expected)

    @property
    def login_available(self):
        return False

    @property
    def logout_available(self):
        return False
