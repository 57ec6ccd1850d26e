"""A renter's client on raw sockets: it knows every byte that it sent and received."""

import base64
import os
import socket
from dataclasses import dataclass

READ_SECONDS = 60
BLOCK = bytes(64 * 1024)
PROVIDERS = (b"HTTP/1.1 200 ", b"HTTP/1.1 101 ")
CLOSE_OPCODE = 0x8
CLOSED_BY_CAP = 4290


@dataclass
class Tally:
    """What one connection moved. What the gateway said in its own name (a refusal, its close frame) is left out."""

    sent: int = 0
    received: int = 0
    refused: bool = False


class Connection:
    """One connection to the gateway for one session, from `source`."""

    def __init__(self, node, session_id, token, source="127.0.0.1"):
        self.node = node
        self.prefix = f"/s/{session_id}"
        self.token = token
        self.socket = socket.create_connection(
            node.address, timeout=READ_SECONDS, source_address=(source, 0)
        )
        self.tally = Tally()

    def send(self, data):
        """Whether it went out; a connection that was cut takes nothing any more."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        self.tally.sent += len(data)
        return True

    def head(self, method, path, *lines):
        host = f"{self.node.address[0]}:{self.node.address[1]}"
        fixed = [
            f"{method} {self.prefix}{path} HTTP/1.1",
            f"Host: {host}",
            f"Authorization: Bearer {self.token}",
        ]
        return self.send("\r\n".join([*fixed, *lines, "", ""]).encode())

    def upgrade(self):
        key = base64.b64encode(os.urandom(16)).decode()
        return self.head(
            "GET",
            "/websocket",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )

    def answer_head(self):
        """The head of the answer; the connection is closed afterwards."""
        with self.socket, self.socket.makefile("rb") as stream:
            return b"".join(iter(stream.readline, b"\r\n"))

    def read_to_end(self):
        """All that still comes. A reset is an end like any other: what arrived before it has arrived."""
        received = bytearray()
        try:
            while chunk := self.socket.recv(1 << 20):
                received += chunk
        except ConnectionResetError:
            pass
        finally:
            self.socket.close()
        return bytes(received)


def is_gateways_own(received):
    """Whether the gateway answered in its own name, which is not charged: over the cap, or no lease in time."""
    return received.startswith(b"HTTP/1.1 ") and not received.startswith(PROVIDERS)


def download(node, session_id, token, source="127.0.0.1"):
    """Asks for a download without end and takes what comes."""
    connection = Connection(node, session_id, token, source)
    connection.head("GET", "/download")
    received = connection.read_to_end()
    if is_gateways_own(received):
        return Tally(refused=True)
    connection.tally.received = len(received)
    return connection.tally


def upload_bytes(node, session_id, token, count):
    """Sends a body of so many bytes to a provider that reads all of it and does not answer, and leaves."""
    connection = Connection(node, session_id, token)
    with connection.socket:
        connection.head("PUT", "/upload", f"Content-Length: {count}")
        assert connection.send(bytes(count))


def upload(node, session_id, token, may_go_on, source="127.0.0.1"):
    """Sends an upload without end for as long as it is taken, once the provider says that all are there."""
    connection = Connection(node, session_id, token, source)
    connection.head("PUT", "/upload", f"Content-Length: {1 << 40}")
    may_go_on.wait(READ_SECONDS)
    while connection.send(BLOCK):
        pass
    received = connection.read_to_end()
    connection.tally.received = (
        0 if is_gateways_own(received) else len(received)
    )
    return connection.tally


def websocket_echo(node, session_id, token, may_go_on, source="127.0.0.1"):
    """Sends frames and takes their echoes for as long as it goes."""
    connection = Connection(node, session_id, token, source)
    connection.upgrade()
    may_go_on.wait(READ_SECONDS)
    frame = masked_frame(BLOCK[:16384])
    received = bytearray()
    while connection.send(frame):
        try:
            chunk = connection.socket.recv(1 << 20)
        except OSError:
            break
        if not chunk:
            break
        received += chunk
    received += connection.read_to_end()
    connection.tally.received = (
        0
        if is_gateways_own(received)
        else len(received) - own_close_frame(received)
    )
    return connection.tally


def masked_frame(payload):
    """A binary frame, masked with zeros: legal (RFC 6455, section 5.3), and cheap to make."""
    return b"\x82\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload


def own_close_frame(received):
    """Length of the gateway's close frame, if that is what the stream ends with."""
    head_end = received.find(b"\r\n\r\n") + 4
    at = head_end
    while at + 4 <= len(received):
        opcode, length = received[at] & 0x0F, received[at + 1]
        start = at + 2
        if length == 126:
            length, start = int.from_bytes(received[at + 2 : at + 4], "big"), at + 4
        if opcode == CLOSE_OPCODE and start + length == len(received):
            code = int.from_bytes(received[start : start + 2], "big")
            return len(received) - at if code == CLOSED_BY_CAP else 0
        at = start + length
    return 0
