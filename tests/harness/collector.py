"""An OpenTelemetry collector for tests: takes spans over HTTP, as protobuf, and keeps them."""

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class TakenSpan:
    """One span as it came."""

    service: str
    """The resource's service.name."""
    name: str
    kind: str
    """SERVER, CLIENT, PRODUCER or CONSUMER."""
    trace_id: str
    span_id: str
    parent_id: str
    """Empty = a trace begins."""
    failed: bool
    attributes: dict[str, Any]


class Collector:
    """Listens on loopback until closed. With `hangs` it takes connections and never answers."""

    def __init__(self, *, hangs: bool = False) -> None:
        self._lock = threading.Lock()
        self._spans: list[TakenSpan] = []
        self._closing = threading.Event()
        self.raw = b""
        """All bodies, one after the other."""
        self.posts = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.posts += 1
                if hangs:
                    outer._closing.wait()
                    return
                outer._take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        """As K2THINK_OTLP_ENDPOINT takes it."""

    @property
    def spans(self) -> list[TakenSpan]:
        """All that came so far."""
        with self._lock:
            return list(self._spans)

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces", path
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            self.raw += body
            for resource in request.resource_spans:
                service = _attributes(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    self._spans += [_span(service, span) for span in scope.spans]


def _span(service: str, span: Any) -> TakenSpan:
    kinds = {2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
    return TakenSpan(
        service=service,
        name=span.name,
        kind=kinds.get(span.kind, str(span.kind)),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        failed=span.status.code == 2,
        attributes=_attributes(span.attributes),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        found[pair.key] = (
            [getattr(item, item.WhichOneof("value")) for item in value.values] if kind == "array_value" else value
        )
    return found
