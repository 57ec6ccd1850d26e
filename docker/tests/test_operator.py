"""The operator's side: what the compose file promises, and the health check. The gateway itself is tested where it is built."""

import http.server
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

DOCKER_DIR = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def gateway():
    return yaml.safe_load((DOCKER_DIR / "compose.yaml").read_text())["services"]["gateway"]


def test_ports_are_published_on_loopback_only(gateway):
    assert gateway["ports"]
    assert [port for port in gateway["ports"] if not port.startswith("127.0.0.1:")] == []


def test_the_gateway_is_shut_in(gateway):
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    assert gateway["security_opt"] == ["no-new-privileges"]
    assert "privileged" not in gateway
    assert "network_mode" not in gateway


def test_only_the_data_volume_is_writable_and_no_socket_is_mounted(gateway):
    data, config = gateway["volumes"]
    assert data == "data:/var/lib/runit"
    assert config["target"] == "/etc/runit/runit.toml"
    assert config["read_only"] is True


def test_the_sample_configuration_that_it_mounts_exists(gateway):
    sample = gateway["volumes"][1]["source"].split(":-")[1].rstrip("}")
    assert (DOCKER_DIR / sample).is_file()


@pytest.mark.parametrize(
    ("status", "body", "healthy"),
    [
        (200, "RUNIT control plane running ✅", True),
        (200, "something else", False),
        (503, "RUNIT control plane running ✅", False),
    ],
)
def test_healthy_is_the_control_planes_own_line(status, body, healthy):
    with answering(status, body) as port:
        assert (health_check(port).returncode == 0) is healthy


def test_a_silent_control_plane_is_unhealthy():
    with answering(200, "") as port:
        pass
    assert health_check(port).returncode != 0


def health_check(port):
    script = DOCKER_DIR / "gateway" / "healthcheck.sh"
    return subprocess.run([script, str(port)], capture_output=True, timeout=10)


@contextmanager
def answering(status, body):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            content = body.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
