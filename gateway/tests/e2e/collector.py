"""A collector of OpenTelemetry as far as OTLP over HTTP goes: what is sent to it is read by the protocol's own classes."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Collector:
    def __init__(self):
        self.requests = []
        self.bodies = []
        self.asked = 0
        # Cleared, it takes requests and answers none.
        self.answers = threading.Event()
        self.answers.set()
        handler = type("Handler", (Handler,), {"collector": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.answers.set()
        self.server.shutdown()
        self.server.server_close()

    def spans(self):
        """Every span so far, with its attributes and its program's as dictionaries."""
        return [
            Span(span, attributes(resource.resource))
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Span:
    def __init__(self, span, resource):
        self.name = span.name
        self.kind = span.kind
        self.trace = span.trace_id.hex()
        self.id = span.span_id.hex()
        self.parent = span.parent_span_id.hex()
        self.attributes = attributes(span)
        self.moments = [event.name for event in span.events]
        self.seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        self.failed = span.status.code == span.status.STATUS_CODE_ERROR
        self.resource = resource


def attributes(of):
    return {
        one.key: getattr(one.value, one.value.WhichOneof("value"))
        for one in of.attributes
    }


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        collector = self.collector
        body = self.rfile.read(int(self.headers["Content-Length"]))
        collector.asked += 1
        collector.answers.wait()
        known = self.path == "/v1/traces"
        known = known and self.headers["Content-Type"] == "application/x-protobuf"
        if known:
            collector.bodies.append(body)
            collector.requests.append(ExportTraceServiceRequest.FromString(body))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200 if known else 400)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass
