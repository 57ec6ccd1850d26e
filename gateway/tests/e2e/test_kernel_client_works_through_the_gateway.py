"""A Jupyter client that knows the gateway's session URL and the access token works as with any Jupyter server."""

import base64
import hashlib
import os

import pytest
from jupyter_kernel_client import JupyterKernelClient

from house import renter

MEGABYTE = 1_000_000
FILE_BYTES = 200 * MEGABYTE
CHUNK_BYTES = 4 << 20
MEMORY_GROWTH_BYTES = 20 * MEGABYTE


@pytest.fixture(scope="module")
def access(node, agent):
    return node.request(agent.session_id)


@pytest.fixture(scope="module")
def kernel(node, access):
    with JupyterKernelClient(
        server_url=node.session_url(access.session_id), token=access.token
    ) as kernel:
        yield kernel


def printed(outputs):
    assert all(one["output_type"] == "stream" for one in outputs), outputs
    return "".join(one["text"] for one in outputs)


def test_a_cell_runs(kernel):
    reply = kernel.execute("print(6*7)", timeout=60)

    assert reply["status"] == "ok"
    assert printed(reply["outputs"]) == "42\n"


def test_20_megabytes_of_output_arrive_whole(kernel):
    code = f"for letter in 'abcdefghijklmnopqrst':\n    print(letter * {MEGABYTE - 1})"

    reply = kernel.execute(code, timeout=120)

    assert reply["status"] == "ok"
    text = printed(reply["outputs"])
    assert len(text) == 20 * MEGABYTE
    assert text == "".join(
        letter * (MEGABYTE - 1) + "\n" for letter in "abcdefghijklmnopqrst"
    )


def test_a_large_file_goes_up_and_down_unchanged_and_the_gateway_stays_small(
    node, access, tmp_path
):
    url = f"{node.session_url(access.session_id)}/api/contents/large.bin"
    client = renter(access.token)
    memory = Memory(node.program.pid)

    sent = hashlib.sha256()
    chunks = -(-FILE_BYTES // CHUNK_BYTES)
    for number in range(1, chunks + 1):
        block = os.urandom(min(CHUNK_BYTES, FILE_BYTES - (number - 1) * CHUNK_BYTES))
        sent.update(block)
        model = {
            "type": "file",
            "format": "base64",
            "content": base64.b64encode(block).decode(),
            # JupyterLab's protocol: the last chunk is number -1.
            "chunk": number if number < chunks else -1,
        }
        answer = client.put(url, json=model)
        assert answer.status_code in (200, 201), answer.text
    answer = client.get(
        url, params={"type": "file", "format": "base64", "content": "1"}
    )
    assert answer.status_code == 200
    content = base64.b64decode(answer.json()["content"])

    assert len(content) == FILE_BYTES
    assert hashlib.sha256(content).digest() == sent.digest()
    assert memory.growth_bytes() < MEMORY_GROWTH_BYTES


class Memory:
    """How far a process's resident memory rose above where it stood (proc(5): VmHWM, reset through clear_refs)."""

    def __init__(self, pid):
        self.status = f"/proc/{pid}/status"
        with open(f"/proc/{pid}/clear_refs", "w") as clear_refs:
            clear_refs.write("5")
        self.before = self.read("VmRSS")

    def growth_bytes(self):
        return self.read("VmHWM") - self.before

    def read(self, key):
        with open(self.status) as status:
            line = next(line for line in status if line.startswith(key))
        return int(line.split()[1]) * 1024
