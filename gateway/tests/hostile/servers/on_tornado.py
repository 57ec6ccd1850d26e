"""Tornado, telling what it read: method, target, framing and body of each request, one line each."""

import asyncio
import sys

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, ResponseStartLine
from tornado.netutil import bind_sockets


def answer(request):
    headers = request.headers
    framing = (
        "chunked"
        if "Transfer-Encoding" in headers
        else "length" if "Content-Length" in headers else "none"
    )
    body = request.body.hex()
    print(request.method, request.uri, framing, body, sep="\t", flush=True)
    body = b"" if request.method == "HEAD" else b"ok"
    start = ResponseStartLine("HTTP/1.1", 200, "OK")
    request.connection.write_headers(start, HTTPHeaders({"Content-Length": "2"}), body)
    request.connection.finish()


async def main():
    sockets = bind_sockets(0, "127.0.0.1")
    HTTPServer(answer).add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    # The test goes away by closing our standard input.
    await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())
