"""The way of spans to the endpoint: a queue with a bound, and a thread that makes OpenTelemetry's spans of them.

The loops that serve calls put a span into the queue and go on. What does not fit is dropped and counted, and so is what
the endpoint does not take: no call waits for it. OpenTelemetry is imported by the thread, so that a process which takes
calls over does not wait for that either.
"""

from __future__ import annotations

import importlib.util
import logging
import platform
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime import logs
from runtime.config import Tracing
from runtime.errors import ConfigError
from runtime.families import shared
from runtime.metrics import Requests
from runtime.process import step_back
from runtime.tracing.spans import Span
from runtime.tracing.tracer import Tracer
from wire.versions import software

__all__ = ["MOST_WAITING", "Exporter", "check", "tracing"]

MOST_WAITING = 4096
_BATCH = 64  # spans that are sent together: making them takes the interpreter a few milliseconds, in small steps
_EVERY_S = 1.0
_GOODBYE_S = 1.0
_MOST_HEADERS = 16
_PACKAGES = "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"


def check(config: Tracing) -> None:
    """Looks at what can be wrong with the section. Raises ConfigError."""
    if not config.endpoint:
        return
    for package in _PACKAGES:
        if not _is_there(package):
            raise ConfigError(
                f"tracing.endpoint: {package} is not installed: pip install 'firsthop[tracing]', or leave it empty"
            )
    if config.headers_file is not None:
        _headers(config.headers_file)


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def _headers(path: Path) -> dict[str, str]:
    """The headers in a file. Raises ConfigError, in which nothing of the file stands."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is no text"
        raise ConfigError(f"tracing.headers_file: {path}: {why}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        token = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not (colon and token and value.isascii() and value.isprintable()) or len(found) >= _MOST_HEADERS:
            raise ConfigError(f"tracing.headers_file: {path}: line {number} is no `name: value`, or one too many")
        found[name] = value
    return found


def tracing(config: Tracing, service: str, name: str, *, region: str = "", zone: str = "") -> tuple[Tracer, Exporter]:
    """The tracer of this process, the one called ``name`` of its ``service``, and the exporter of its spans, which is
    to be closed. Raises ConfigError."""
    about = {
        "service.namespace": "firsthop",
        "service.name": service,
        "service.instance.id": name,
        "service.version": software().removeprefix("firsthop").strip() or "unknown",
        "host.name": platform.node(),
        **{key: value for key, value in (("cloud.region", region), ("cloud.availability_zone", zone)) if value},
        **config.attributes,
    }
    exporter = Exporter(config, about)
    return Tracer(exporter if config.endpoint else None, config.ratio, trust_parent=config.trust_parent), exporter


class Exporter:
    """The exporter of one process, whose spans are about what ``about`` says. Without an endpoint it does nothing."""

    def __init__(self, config: Tracing, about: Mapping[str, str]) -> None:
        self._config, self._about = config, dict(about)
        self._headers = _headers(config.headers_file) if config.endpoint and config.headers_file else {}
        self._waiting: deque[Span] = deque()
        self.counts = Requests(shared.SPANS)
        self._over = threading.Event()
        self._broken = False
        self._thread: threading.Thread | None = None
        if config.endpoint:
            self._thread = threading.Thread(target=self._run, name="tracing", daemon=True)
            self._thread.start()

    def admits(self) -> bool:
        return not self._over.is_set()

    def put(self, span: Span) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self.counts.add("queue_full")
        else:
            self._waiting.append(span)

    def close(self) -> None:
        """Sends what waits, for a second at most, and ends the thread."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_GOODBYE_S)

    # --- in the thread

    def _run(self) -> None:
        step_back()
        try:
            sending = _Sending(self._config, self._headers, self._about)
        except Exception as e:
            logs.get().error("spans cannot be sent", why=repr(e))
            self._over.wait()
            return
        while not self._over.wait(_EVERY_S):
            self._send_all(sending)
        self._send_all(sending)
        sending.close()

    def _send_all(self, sending: _Sending) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            try:
                sent = sending.send(batch)
            except Exception as e:  # whatever a library raises
                sent, why = False, repr(e)
            else:
                why = "the endpoint does not take them"
            self.counts.add("sent" if sent else "not_taken", times=len(batch))
            if sent == self._broken:  # the next one would say the same
                self._broken = not sent
                if sent:
                    logs.get().info("spans are sent again", endpoint=self._config.endpoint)
                else:
                    logs.get().warning("spans cannot be sent", endpoint=self._config.endpoint, why=why)


class _Sending:
    """OpenTelemetry's exporter, and what makes its spans of ours."""

    def __init__(self, config: Tracing, headers: Mapping[str, str], about: Mapping[str, str]) -> None:
        # What it has to say about an endpoint that is away is said by us, once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.sdk.trace.export import SpanExportResult
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._trace: Any = trace
        self._event, self._span, self._success = Event, ReadableSpan, SpanExportResult.SUCCESS
        self._resource = Resource(dict(about))
        self._scope = InstrumentationScope("firsthop", about["service.version"])
        self._sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        self._kinds = {name: trace.SpanKind[name.upper()] for name in ("internal", "server", "client")}
        self._exporter: Any = OTLPSpanExporter(
            endpoint=config.endpoint,
            certificate_file=str(config.ca_file) if config.ca_file is not None else None,
            headers=dict(headers),
            timeout=config.timeout_s,
        )

    def send(self, spans: list[Span]) -> bool:
        """Sends spans. Returns whether the endpoint took them."""
        made = [self._made(span) for span in spans]
        return self._exporter.export(made) is self._success

    def close(self) -> None:
        self._exporter.shutdown()

    def _made(self, span: Span) -> Any:
        trace, mine, epoch_ns = self._trace, span.context, span.epoch_ns
        state = trace.TraceState.from_header([mine.state]) if mine.state else None
        parent = None
        if span.parent_id:
            parent = trace.SpanContext(mine.trace_id, span.parent_id, span.remote, self._sampled, state)
        failed = trace.Status(trace.StatusCode.ERROR, span.error) if span.error else trace.Status()
        return self._span(
            name=span.name,
            context=trace.SpanContext(mine.trace_id, mine.span_id, False, self._sampled, state),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            events=[self._event(name, each, epoch_ns + round(1e9 * at)) for name, at, each in span.events],
            kind=self._kinds[span.shape.kind],
            status=failed,
            start_time=epoch_ns + round(1e9 * span.began),
            end_time=epoch_ns + round(1e9 * (span.ended or span.began)),
            instrumentation_scope=self._scope,
        )
