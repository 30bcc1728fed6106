"""An OTLP/HTTP receiver that reads spans with OpenTelemetry's own messages, and three services for the agent
``pipeline``, each in threads of this process."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Otlp
from opentelemetry.proto.trace.v1.trace_pb2 import Status

SAID = "whispered confidences"
ANSWERED = "Nothing that a trace may tell. "


@dataclass(frozen=True)
class Received:
    """A span as it came. Times are in nanoseconds."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    began: int
    ended: int
    attributes: dict[str, Any]
    events: dict[str, dict[str, Any]]
    error: str | None
    about: dict[str, Any]

    def inside(self, other: Received, slack_ns: int = 5_000_000) -> bool:
        """Whether it lies within the other one, which may be of another process."""
        return other.began - slack_ns <= self.began and self.ended <= other.ended + slack_ns


@dataclass
class Collector:
    """What came so far. ``status`` is what it answers with, and ``headers`` are those of the last request."""

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    batches: int = 0
    hold: threading.Event | None = None  # which it waits for before it answers

    def named(self, name: str, trace: str = "") -> list[Received]:
        return [span for span in list(self.spans) if span.name == name and trace in ("", span.trace)]

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            about = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_received(span, about) for span in scope.spans]


def _received(span: Otlp, about: dict[str, Any]) -> Received:
    failed = span.status.code == Status.STATUS_CODE_ERROR
    return Received(
        name=span.name,
        kind=Otlp.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events={event.name: _attributes(event.attributes) for event in span.events},
        error=span.status.message if failed else None,
        about=about,
    )


def _attributes(found: Any) -> dict[str, Any]:
    def value(each: KeyValue) -> Any:
        return getattr(each.value, str(each.value.WhichOneof("value")))

    return {each.key: value(each) for each in found}


@contextmanager
def a_collector() -> Iterator[Collector]:
    """A receiver at a port of its own."""
    collector = Collector()

    def take(request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        collector.headers = dict(request.headers)
        collector.batches += 1
        if collector.hold is not None:
            collector.hold.wait(60)
        if collector.status == 200:
            collector.take(body)
        return collector.status, "application/x-protobuf", ExportTraceServiceResponse().SerializeToString()

    with _served({"/v1/traces": take}) as url:
        collector.url = f"{url}/v1/traces"
        yield collector


@dataclass
class Services:
    """Three services, and the ``traceparent`` of each request that came, by path."""

    url: str = ""
    parents: dict[str, list[str]] = field(default_factory=dict)


@contextmanager
def the_services() -> Iterator[Services]:
    """Transcription, chat and speech at a port of their own."""
    services = Services()

    def note(path: str, request: BaseHTTPRequestHandler) -> None:
        services.parents.setdefault(path, []).append(request.headers.get("traceparent", ""))

    def transcribe(request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        note("transcription", request)
        return 200, "application/json", json.dumps({"text": SAID}).encode()

    def chat(request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        note("chat", request)
        assert SAID in body.decode()
        out = io.StringIO()
        for event in (
            {"choices": [{"delta": {"content": ANSWERED}}]},
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}},
        ):
            out.write(f"data: {json.dumps(event)}\n\n")
        out.write("data: [DONE]\n\n")
        return 200, "text/event-stream", out.getvalue().encode()

    def speak(request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        note("speech", request)
        return 200, "audio/pcm", b"\x00\x20\x00\xe0" * 2400  # 200 ms, loud

    routes = {"/audio/transcriptions": transcribe, "/chat/completions": chat, "/audio/speech": speak}
    with _served({f"/v1{path}": handler for path, handler in routes.items()}) as url:
        services.url = f"{url}/v1"
        yield services


Handler = Callable[[BaseHTTPRequestHandler, bytes], tuple[int, str, bytes]]


@contextmanager
def _served(routes: dict[str, Handler]) -> Iterator[str]:
    class Served(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers["Content-Length"]))
            status, kind, answer = routes[self.path](self, body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Served) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
