"""The spans of requests about calls. There is one only of a caller that has shown a good key: nobody else can fill the
queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from runtime.tracing.context import parse
from runtime.tracing.shapes import REQUEST
from runtime.tracing.spans import NOTHING, Span
from runtime.tracing.tracer import Tracer

__all__ = ["traced"]


@contextmanager
def traced(tracer: Tracer, request: web.Request, status: int = 200) -> Iterator[Span]:
    """The span of a request whose caller is known, from now on. It ends with the block: ``status`` is that of the
    response where nothing is raised, and an error has its own."""
    if tracer.sink is None:
        yield NOTHING
        return
    headers = request.headers
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else ""
    parent = parse(headers.getall("traceparent", []), headers.getall("tracestate", []))
    span = tracer.request(REQUEST, f"{request.method} {route}", parent)
    span.put({"http.request.method": request.method, "http.route": route, "url.scheme": request.scheme})
    try:
        yield span
    except BaseException as e:
        status = getattr(e, "status", 500)
        if status >= 500:  # the others are the caller's
            span.fail(getattr(e, "code", None) or str(status))
        raise
    finally:
        span.put({"http.response.status_code": status})
        span.end()
