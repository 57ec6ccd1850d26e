"""A provider's server on raw sockets: downloads without end, uploads without a bottom, WebSockets that echo.

    <any prefix>/download     200, then bytes for as long as they are taken
    <any prefix>/trickle      the same, slowly, and never held
    <any prefix>/breaks-off   200, then less than the head says
    <any prefix>/upload       reads for as long as bytes come
    <any prefix>/websocket    101, then every frame comes back
    anything else             200 with a short body

`hold(n)` keeps the first n of the endless ones waiting until all n are there, so that none of them comes too late for
its share of a small cap.
"""

import base64
import hashlib
import socket
import threading
import time

HOLD_SECONDS = 60
ENDLESS = 1 << 40
# Between two chunks of a slow download: about 300 kB/s.
TRICKLE_SECONDS = 0.05
CHUNK = bytes(range(256)) * 64
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Provider:
    def __init__(self, address="127.0.0.1"):
        self.heads = []
        self.everybody_is_there = threading.Event()
        self.everybody_is_there.set()
        self.awaited = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server((address, 0), backlog=256)
        self.url = f"http://{address}:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def hold(self, count):
        self.awaited = count
        self.everybody_is_there = threading.Event()

    def arrived(self):
        with self.lock:
            self.awaited -= 1
            if self.awaited <= 0:
                self.everybody_is_there.set()
        assert self.everybody_is_there.wait(HOLD_SECONDS), (
            f"{self.awaited} more were awaited"
        )

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection:
            try:
                stream = connection.makefile("rb")
                while self.answer(connection, stream):
                    pass
            except OSError:
                pass

    def answer(self, connection, stream):
        """One request; whether the connection goes on."""
        head = read_head(stream)
        if not head:
            return False
        with self.lock:
            self.heads.append(head)
        path = head.split(b" ")[1].split(b"?")[0]
        if path.endswith(b"/download"):
            self.arrived()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % ENDLESS
            )
            while True:
                connection.sendall(CHUNK)
        if path.endswith(b"/trickle"):
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % ENDLESS
            )
            while True:
                connection.sendall(CHUNK)
                time.sleep(TRICKLE_SECONDS)
        if path.endswith(b"/breaks-off"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nok")
            return False
        if path.endswith(b"/upload"):
            self.arrived()
            while stream.read1(65536):
                pass
            return False
        if path.endswith(b"/websocket"):
            key = header(head, b"sec-websocket-key")
            accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept
            )
            self.arrived()
            while frame := read_frame(stream):
                connection.sendall(frame)
            return False
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True


def read_head(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return b""
        head += line
    return head


def header(head, name):
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    raise AssertionError(f"no {name!r} in {head!r}")


def read_frame(stream):
    """One masked frame of a client's, as the unmasked frame that a server sends back (RFC 6455, section 5.2)."""
    start = stream.read(2)
    if len(start) < 2:
        return b""
    length, extended = start[1] & 0x7F, b""
    if length == 126:
        extended = stream.read(2)
    elif length == 127:
        extended = stream.read(8)
    if extended:
        length = int.from_bytes(extended, "big")
    mask = stream.read(4)
    payload = stream.read(length)
    if len(payload) < length:
        return b""
    unmasked = (
        bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        if any(mask)
        else payload
    )
    return bytes([start[0], start[1] & 0x7F]) + extended + unmasked
