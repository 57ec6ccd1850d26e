"""A real Prometheus scrapes a real node: names pass its linter, and counters move while a WebSocket stays open."""

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import requests
import websocket

import house
from house import Program, eventually, free_ports

KEY = "the operator's key of this run"
TREE = house.ROOT / "target/test-prometheus/usr/bin"
START_SECONDS = 60
SCRAPED_SECONDS = 30
ECHOED_BYTES = 100_000


@pytest.fixture(scope="module")
def node_settings():
    return {"gateway.operator_key": KEY}


def tool(name):
    """The installed one, or what docker/setup.sh has unpacked."""
    return Path(shutil.which(name) or TREE / name)


@pytest.fixture(scope="module")
def prometheus(node, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prometheus")
    (port,) = free_ports(1)
    settings = folder / "prometheus.yml"
    settings.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s"},
                "scrape_configs": [
                    {
                        "job_name": "runit",
                        "authorization": {"credentials": KEY},
                        "static_configs": [
                            {"targets": [node.admin_url.removeprefix("http://")]}
                        ],
                    }
                ],
                "rule_files": [str(house.ROOT / "config/prometheus/alerts.yml")],
            }
        )
    )
    program = Program(
        "prometheus",
        folder,
        [
            tool("prometheus"),
            f"--config.file={settings}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
    )
    url = f"http://127.0.0.1:{port}"
    try:
        program.wait_until(
            "Prometheus is ready",
            lambda: requests.get(f"{url}/-/ready", timeout=5).status_code == 200,
            START_SECONDS,
        )
        yield url
    finally:
        program.stop()


def value(prometheus, query):
    answer = requests.get(
        f"{prometheus}/api/v1/query", params={"query": query}, timeout=10
    )
    result = answer.json()["data"]["result"]
    assert result, f"nothing for {query}"
    return float(result[0]["value"][1])


def open_websocket(node, session):
    url = node.session_url(session["sessionId"]).replace("http://", "ws://")
    return websocket.create_connection(
        f"{url}/websocket",
        header=[f"Authorization: Bearer {session['accessToken']}"],
        timeout=SCRAPED_SECONDS,
        http_no_proxy=["127.0.0.1"],
    )


def test_a_counter_moves_while_a_websocket_stays_open(node, prometheus, provider):
    eventually(
        "the node is scraped", lambda: value(prometheus, "up") == 1, SCRAPED_SECONDS
    )
    spent = 'sum(runit_quota_spent_bytes_total{direction="in"})'
    session = node.register(provider.url)
    before = value(prometheus, spent)
    with contextlib.closing(open_websocket(node, session)) as socket:
        socket.send_binary(b"x" * ECHOED_BYTES)
        eventually(
            "Prometheus has seen the bytes",
            lambda: value(prometheus, spent) >= before + ECHOED_BYTES,
            SCRAPED_SECONDS,
        )
        eventually(
            "and the WebSocket",
            lambda: value(prometheus, "runit_gateway_websockets") == 1,
            SCRAPED_SECONDS,
        )
        socket.send_binary(b"still open")
        while socket.recv() != b"still open":
            pass
    eventually(
        "and its end",
        lambda: value(prometheus, "runit_gateway_websockets") == 0,
        SCRAPED_SECONDS,
    )
    rules = requests.get(f"{prometheus}/api/v1/rules", timeout=10).json()["data"]
    health = {rule["health"] for group in rules["groups"] for rule in group["rules"]}
    assert health <= {"ok", "unknown"} and rules["groups"], rules


def test_names_and_help_of_all_metrics_pass_the_linter(node):
    metrics = requests.get(
        f"{node.admin_url}/metrics",
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=10,
    )
    assert metrics.status_code == 200
    for name in ["runit_gateway_connections", "runit_control_requests_total"]:
        assert name in metrics.text
    lint = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        check=False,
        input=metrics.text,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert lint.returncode == 0 and not lint.stdout + lint.stderr, (
        lint.stdout + lint.stderr
    )
