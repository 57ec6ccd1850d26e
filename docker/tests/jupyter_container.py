"""A session's container, and a kernel in it, as a test sees them."""

import json
import os
import secrets
import subprocess
import time
import uuid
from pathlib import Path

import requests
import websocket

READY_DEADLINE_SECONDS = 60
CELL_DEADLINE_SECONDS = 120

# DESIGN.md section 5: what every session runs under.
HARDENED = [
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--pids-limit=100",
    "--memory=4g",
    "--memory-swap=4g",
    "--cpus=2",
    "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=512m",
]


def docker(*args, check=True, timeout=60):
    done = subprocess.run(["docker", *args], capture_output=True, text=True, timeout=timeout)
    if check:
        assert done.returncode == 0, f"docker {' '.join(args)}: {done.stderr.strip()}"
    return done


class JupyterContainer:
    """Runs the image hardened, its port on a free port of loopback; leaves nothing behind."""

    def __init__(self, image, name, base_url):
        self.image = image
        self.name = name
        self.base_url = base_url
        self.token = secrets.token_hex(24)
        self.auth = {"Authorization": f"token {self.token}"}
        self.port = None

    def __enter__(self):
        try:
            docker(
                "create",
                f"--name={self.name}",
                *HARDENED,
                f"--volume={self.name}:/workspace",
                "--publish=127.0.0.1::8888",
                f"--env=RUNIT_JUPYTER_TOKEN={self.token}",
                f"--env=RUNIT_BASE_URL={self.base_url}",
                self.image,
            )
            docker("start", self.name)
            self.port = int(docker("port", self.name, "8888/tcp").stdout.rsplit(":", 1)[1])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        docker("rm", "--force", "--volumes", self.name, check=False)
        docker("volume", "rm", "--force", self.name, check=False)

    def url(self, path, scheme="http"):
        return f"{scheme}://127.0.0.1:{self.port}{self.base_url}{path}"

    def get(self, path, headers=None, **kwargs):
        headers = self.auth if headers is None else headers
        return requests.get(self.url(path), headers=headers, timeout=30, allow_redirects=False, **kwargs)

    def wait_until_ready(self):
        deadline = time.monotonic() + READY_DEADLINE_SECONDS
        last = None
        while time.monotonic() < deadline:
            try:
                last = self.get("api/status")
                if last.ok:
                    return
            except requests.ConnectionError as error:
                last = error
            time.sleep(0.1)
        raise AssertionError(f"not ready after {READY_DEADLINE_SECONDS} s: {last}\n{self.logs()}")

    def logs(self):
        done = docker("logs", self.name, check=False)
        return done.stdout + done.stderr

    def inspect(self):
        return json.loads(docker("inspect", self.name).stdout)[0]

    def exec(self, *command, check=False, env=None, timeout=60):
        flags = [f"--env={name}={value}" for name, value in (env or {}).items()]
        return docker("exec", *flags, self.name, *command, check=check, timeout=timeout)

    def copy_in(self, source: Path, target: str):
        """Through standard input: `docker cp` refuses a container with a read-only root."""
        with source.open("rb") as content:
            subprocess.run(
                ["docker", "exec", "-i", self.name, "sh", "-c", f"cat > {target}"],
                stdin=content,
                check=True,
                timeout=60,
            )

    def kernel(self):
        return Kernel(self)


class Kernel:
    """One kernel, driven over its WebSocket as JupyterLab does it."""

    def __init__(self, container):
        self._container = container
        self._session = uuid.uuid4().hex

    def __enter__(self):
        answer = requests.post(
            self._container.url("api/kernels"), headers=self._container.auth, json={"name": "python3"}, timeout=60
        )
        assert answer.status_code == 201, answer.text
        self._id = answer.json()["id"]
        self._socket = websocket.create_connection(
            self._container.url(f"api/kernels/{self._id}/channels?session_id={self._session}", scheme="ws"),
            header=self._container.auth,
            timeout=CELL_DEADLINE_SECONDS,
        )
        return self

    def __exit__(self, *_):
        self._socket.close()
        requests.delete(self._container.url(f"api/kernels/{self._id}"), headers=self._container.auth, timeout=60)

    def run(self, code):
        """Runs a cell; returns its standard output and the MIME bundles that it displayed. A cell that fails, fails."""
        request_id = uuid.uuid4().hex
        self._socket.send(json.dumps(execute_request(request_id, self._session, code)))
        text, displayed = [], []
        deadline = time.monotonic() + CELL_DEADLINE_SECONDS
        while time.monotonic() < deadline:
            message = json.loads(self._socket.recv())
            if message["parent_header"].get("msg_id") != request_id:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream" if content["name"] == "stdout":
                    text.append(content["text"])
                case "display_data" | "execute_result":
                    displayed.append(content["data"])
                case "error":
                    raise AssertionError("\n".join(content["traceback"]))
                case "status" if content["execution_state"] == "idle":
                    return "".join(text), displayed
        raise AssertionError(f"the cell did not end within {CELL_DEADLINE_SECONDS} s; so far: {''.join(text)[-500:]}")


def execute_request(request_id, session, code):
    return {
        "channel": "shell",
        "header": {
            "msg_id": request_id,
            "msg_type": "execute_request",
            "username": "renter",
            "session": session,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "version": "5.3",
        },
        "parent_header": {},
        "metadata": {},
        "content": {"code": code, "silent": False, "store_history": False, "allow_stdin": False},
        "buffers": [],
    }


def host_ca_bundle():
    """The bundle of CAs that this machine is told to trust, or None where it is left to the programs."""
    for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        if os.environ.get(name):
            return Path(os.environ[name])
    return None
