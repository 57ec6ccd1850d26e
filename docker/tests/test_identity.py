"""Who is let in: the bearer of the header, and what the answers must not give away."""

import json
import re

import pytest
import requests
import websocket

PAGES = ["lab", "lab/tree", "api", "api/status", "api/kernels", "api/contents", "static/favicons/favicon.ico", "metrics", "doesnotexist"]


@pytest.mark.parametrize("path", [*PAGES, "login", "logout"])
def test_without_the_header_everything_is_403(jupyter, path):
    assert jupyter.get(path, headers={}).status_code == 403


def test_without_the_header_the_base_url_is_a_redirect_and_no_more(jupyter):
    answer = jupyter.get("", headers={})
    assert answer.status_code == 302
    assert answer.headers["Location"] == f"{jupyter.base_url}lab?"
    assert answer.text == ""
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("scheme", ["Bearer {}", "Basic {}", "token {}x", "token x{}", "token  {}", "{}", "token", "token "])
def test_another_credential_is_403(jupyter, scheme):
    assert jupyter.get("api/status", headers={"Authorization": scheme.format(jupyter.token)}).status_code == 403


def test_the_secret_in_the_url_is_no_credential(jupyter):
    assert jupyter.get(f"api/status?token={jupyter.token}", headers={}).status_code == 403


def test_the_secret_in_a_cookie_is_no_credential(jupyter):
    assert jupyter.get("api/status", headers={"Cookie": f"token={jupyter.token}; _xsrf={jupyter.token}"}).status_code == 403


def test_a_wrong_token_in_the_url_does_not_hide_the_header(jupyter):
    assert jupyter.get("api/status?token=wrong").status_code == 200


def test_the_header_opens_the_page(jupyter):
    answer = jupyter.get("lab")
    assert answer.status_code == 200
    assert "jupyter-config-data" in answer.text


def test_there_is_no_login_page(jupyter):
    assert jupyter.get("login").status_code == 404
    assert jupyter.get("logout").status_code == 404


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("signed_in", [True, False])
def test_no_answer_holds_the_secret_or_sets_a_cookie(jupyter, path, signed_in):
    answer = jupyter.get(path, headers=None if signed_in else {})
    assert jupyter.token not in answer.text
    assert jupyter.token not in str(answer.headers)
    assert "Set-Cookie" not in answer.headers


def test_the_page_is_configured_without_a_token(jupyter):
    page = jupyter.get("lab").text
    config = json.loads(re.search(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    assert config.get("token", "") == ""
    assert config["baseUrl"] == jupyter.base_url
    assert "@jupyterlab/apputils-extension:announcements" in json.dumps(config["disabledExtensions"])


def test_everybody_is_the_same_renter(jupyter):
    names = {json.dumps(jupyter.get("api/me").json()["identity"], sort_keys=True) for _ in range(2)}
    assert len(names) == 1
    assert json.loads(names.pop())["username"] == "jupyteruser"


def test_a_foreign_origin_is_not_echoed(jupyter):
    answer = jupyter.get("api/status", headers={**jupyter.auth, "Origin": "https://evil.example"})
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_an_authenticated_write_needs_no_xsrf_cookie(jupyter):
    url = jupyter.url("api/contents/written.txt")
    body = {"type": "file", "format": "text", "content": "x"}
    assert requests.put(url, headers=jupyter.auth, json=body, timeout=30).status_code == 201
    assert requests.put(url, headers={}, json=body, timeout=30).status_code == 403
    assert requests.delete(url, headers=jupyter.auth, timeout=30).status_code == 204


@pytest.mark.parametrize(
    "path",
    ["api/kernels/00000000-0000-0000-0000-000000000000/channels", "terminals/websocket/1", "lsp/ws/pylsp", "api/events/subscribe"],
)
def test_a_websocket_without_the_header_is_403(jupyter, path):
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(jupyter.url(path, scheme="ws"), timeout=30)
    assert refused.value.status_code == 403


def test_the_secret_is_in_no_process_environment_or_command_line(jupyter):
    """Not a wall (same user, same machine), but nobody pastes it with the output of `env`."""
    with jupyter.kernel() as kernel:
        found, _ = kernel.run(
            "import glob\n"
            "for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):\n"
            "    try:\n"
            f"        if b'{jupyter.token[:16]}' + b'{jupyter.token[16:]}' in open(path, 'rb').read(): print(path)\n"
            "    except OSError: pass  # it has ended\n"
        )
    assert found == ""


def test_the_log_holds_no_secret(jupyter):
    jupyter.get("api/doesnotexist")
    assert jupyter.token not in jupyter.logs()
