"""A stand-in for the agent's gate: forwards to one container and puts the credential in, since a browser cannot.

Every request gets a connection of its own, so that only a connection's first head has to be read.
"""

import asyncio
import re
import threading


class LoopbackGate:
    def __init__(self, port, token):
        self._upstream_port = port
        self._credential = f"Authorization: token {token}\r\n".encode()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        serving = asyncio.start_server(self._forward, "127.0.0.1", 0, limit=1 << 20)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(timeout=10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    async def _forward(self, from_browser, to_browser):
        try:
            head = await from_browser.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            to_browser.close()
            return
        request_line, fields = head.split(b"\r\n", 1)
        fields = re.sub(rb"(?im)^authorization:.*\r\n", b"", fields)
        if not re.search(rb"(?im)^upgrade:", fields):
            fields = b"Connection: close\r\n" + re.sub(rb"(?im)^connection:.*\r\n", b"", fields)
        from_jupyter, to_jupyter = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        to_jupyter.write(request_line + b"\r\n" + self._credential + fields)
        await asyncio.gather(copy(from_browser, to_jupyter), copy(from_jupyter, to_browser))


async def copy(source, target):
    try:
        while chunk := await source.read(65536):
            target.write(chunk)
            await target.drain()
    except ConnectionError:
        pass
    finally:
        target.close()
