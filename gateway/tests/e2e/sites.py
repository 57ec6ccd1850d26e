"""Web servers for a browser to visit: a provider that is up to something, and a page of somebody else's."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLANK = b"<!doctype html><title>page</title>"


class Site:
    """Answers `pages[path]`, which is (headers, body), or a blank page; remembers what it was asked."""

    def __init__(self):
        self.pages = {}
        self.requests = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                site.answer(self)

            do_POST = do_PUT = do_DELETE = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        length = int(request.headers.get("Content-Length") or 0)
        request.rfile.read(length)
        path = request.path.split("?")[0]
        self.requests.append((request.command, request.path, request.headers))
        name = path.rsplit("/", 1)[1]
        headers, body = self.pages.get(name, ([("Content-Type", "text/html")], BLANK))
        request.send_response(200)
        for header, value in headers:
            request.send_header(header, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def cookies_seen(self):
        return " ".join(headers.get("Cookie") or "" for _, _, headers in self.requests)
