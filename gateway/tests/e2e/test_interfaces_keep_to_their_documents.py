"""schemathesis asks what the OpenAPI documents describe, and much that they do not: no 5xx, no answer that they do not name.

`schemathesis_hooks` gives it sessions and secrets to ask with, so that each operation is also seen to do what it is for.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from house import HTTP_SECONDS
from sites import Site

KEY = "the operator's key of this run"
HERE = Path(__file__).parent
DEADLINE_SECONDS = 300
OPTIONS = [
    "--checks=not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,unsupported_method,"
    "own_refusals_are_named",
    "--phases=examples,coverage,fuzzing",
    "--mode=all",
    "--max-examples=20",
    "--generation-deterministic",
    "--no-shrink",
    "--workers=1",
    "--request-timeout=20",
    "--max-redirects=0",
    "--warnings=off",
    "--no-color",
]
# Streams never end; what they answer has tests of its own.
STREAM = "text/event-stream"
# schemathesis reads this one to begin with, and asks for it no more.
DOCUMENT = "GET /openapi.json"


@pytest.fixture(scope="module")
def node_settings():
    unlimited = {"requests": 1_000_000, "seconds": 1}
    return {
        "gateway.operator_key": KEY,
        "limits.guesses_per_address": unlimited,
        "control.reconnect_limit": unlimited,
        # Less than a page, so that what a lock has used is told of while it stands.
        "quota.lease_min_bytes": 1024,
        "quota.lease_max_bytes": 16384,
    }


@pytest.fixture
def public_url():
    """A provider's server that answers 200, whatever it is asked, and whatever the method."""
    site = Site()
    site.pages["lab"] = ([], bytes(65536))
    handler = site.server.RequestHandlerClass
    handler.do_PATCH = handler.do_OPTIONS = handler.do_QUERY = handler.do_GET
    yield site.url
    site.close()


def refused_always(node, public_url, document, url, *options):
    """Asks for all operations but streams; answers those that were never seen to succeed."""
    paths = requests.get(document, timeout=HTTP_SECONDS).json()["paths"]
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in paths.items()
        for method, operation in methods.items()
    }
    streams = {
        name for name, one in operations.items() if STREAM in str(one["responses"])
    }
    answers = node.folder / "answers"
    answers.write_text("")
    there = {
        "control_url": node.control_url,
        "admin_url": node.admin_url,
        "operator_key": KEY,
        "public_url": public_url,
        "url": url,
        "answers": str(answers),
    }
    left_out = [f"--exclude-name={name}" for name in streams]
    run = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis",
            *("run", document, f"--url={url}", *OPTIONS, *left_out, *options),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        cwd=node.folder,
        env={
            **os.environ,
            "NO_PROXY": "*",
            "PYTHONPATH": str(HERE),
            "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
            "ASKED": json.dumps(there),
        },
    )
    assert run.returncode == 0, run.stdout[-12_000:] + run.stderr[-2_000:]
    seen = [line.split(" ", 1) for line in answers.read_text().splitlines()]
    succeeded = {name for status, name in seen if int(status) < 400}
    return operations.keys() - streams - {DOCUMENT} - succeeded


def test_the_control_api_keeps_to_its_document(node, public_url):
    document = f"{node.control_url}/openapi.json"
    assert refused_always(node, public_url, document, node.control_url) == set()


def test_the_admin_api_keeps_to_its_document(node, public_url):
    document = f"{node.admin_url}/openapi.json"
    assert refused_always(node, public_url, document, node.admin_url) == set()


def test_the_gateway_keeps_to_its_document(node, public_url):
    document = f"{node.control_url}/openapi/gateway.json"
    # Methods that OpenAPI has no word for are passed on to Jupyter, as the others are.
    passed_on = "--exclude-checks=unsupported_method"
    assert refused_always(node, public_url, document, node.gateway_url, passed_on) == set()
