"""The requests that agents make of other servers, as Prometheus and traces see them: how soon the answer begins, how it
ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from runtime.tracing.shapes import UPSTREAM as SHAPES
from runtime.tracing.spans import NOTHING, Span, Value
from transceiver.counters import UPSTREAM, UPSTREAM_REQUESTS
from transceiver.speech.tasks import Failure

__all__ = ["Asked", "asked"]


class Asked:
    """A request that is being made of ``service``; its ``span`` may be told more. Its ``headers`` are to be sent."""

    def __init__(self, service: str, span: Span = NOTHING) -> None:
        self.span, self.headers = span, span.headers
        self._service = service
        self._began: float | None = time.monotonic()

    def began(self, status: int | None = None) -> None:
        """Takes note that the answer begins, with that HTTP status; later calls change nothing."""
        if self._began is not None:
            took_s = time.monotonic() - self._began
            UPSTREAM.add(took_s, self._service)
            self.span.put({"http.response.status_code": status, "gen_ai.response.time_to_first_chunk": took_s})
            self._began = None


@contextlib.contextmanager
def asked(service: str, under: Span = NOTHING, *, model: str = "", url: str = "") -> Iterator[Asked]:
    """Counts a request of ``service`` by how the block ends. Failures that were caught as such count as refused; put it
    inside of what turns other errors into them. It has a span ``under`` that one."""
    outcome = "broken"
    span = under.child(SHAPES[service], model, _about(service, model, url)) if under else NOTHING
    try:
        yield Asked(service, span)
        outcome = "answered"
    except TimeoutError:
        outcome = "timeout"
        raise
    except Failure:
        outcome = "refused"
        raise
    except (asyncio.CancelledError, GeneratorExit):
        outcome = "cancelled"
        raise
    finally:
        UPSTREAM_REQUESTS.add(service, outcome)
        span.put({"firsthop.upstream.outcome": outcome})
        if outcome not in ("answered", "cancelled"):
            span.fail(outcome)
        span.end()


def _about(service: str, model: str, url: str) -> dict[str, Value | None]:
    split = urlsplit(url)
    host, port = split.hostname or "", split.port or {"https": 443, "wss": 443}.get(split.scheme, 80)
    bare = split._replace(netloc=split.netloc.rpartition("@")[2], query="", fragment="").geturl()  # no secrets
    return {
        "gen_ai.operation.name": service,
        "gen_ai.provider.name": "openai",  # whose API it is, whoever serves it
        "gen_ai.request.model": model,
        "http.request.method": "POST" if split.scheme.startswith("http") else "GET",
        "url.full": bare,
        "server.address": host,
        "server.port": port,
    }
