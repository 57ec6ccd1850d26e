"""schemathesis asks what the OpenAPI documents describe, and much that they do not: no 5xx, no answer that they do not name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KEY = "the operator's key of this run"
# Streams never end; what they answer has tests of its own.
STREAMS = "/events$|/events/live$"
DEADLINE_SECONDS = 120


@pytest.fixture(scope="module")
def node_settings():
    return {"gateway.operator_key": KEY}


def asked(node, document, base, *options):
    """Everybody asks from one address, without a session to ask for: what is refused is what is looked at most."""
    command = [
        Path(sys.executable).parent / "schemathesis",
        "run",
        document,
        f"--url={base}",
        "--checks=not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_headers_conformance,response_schema_conformance,unsupported_method",
        "--phases=examples,coverage,fuzzing",
        "--mode=all",
        "--max-examples=5",
        "--generation-deterministic",
        "--no-shrink",
        "--workers=1",
        "--request-timeout=20",
        "--max-redirects=0",
        f"--exclude-path-regex={STREAMS}",
        "--warnings=off",
        "--no-color",
        *options,
    ]
    run = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        cwd=node.folder,
        env={**os.environ, "NO_PROXY": "*"},
    )
    assert run.returncode == 0, run.stdout[-12_000:] + run.stderr[-2_000:]


def test_the_control_api_keeps_to_its_document(node):
    session = node.register("https://calm-red-fox.trycloudflare.com")
    asked(node, f"{node.control_url}/openapi.json", node.control_url)
    node.deregister(session)


def test_the_admin_api_keeps_to_its_document(node):
    session = node.register("https://calm-red-fox.trycloudflare.com")
    key = f"--header=Authorization: Bearer {KEY}"
    asked(node, f"{node.admin_url}/openapi.json", node.admin_url, key)
    node.deregister(session)


def test_the_gateway_keeps_to_its_document(node):
    asked(node, f"{node.control_url}/openapi/gateway.json", node.gateway_url)
