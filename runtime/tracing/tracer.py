"""The beginning of traces: which requests are sampled, and which sessions go on with a trace that was begun elsewhere.

A caller chooses its trace's id and flags, so neither decides for it to be traced, unless the configuration trusts it:
it may ask not to be traced, and otherwise chance decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from runtime.tracing.context import Context, parse
from runtime.tracing.shapes import SESSION, Shape
from runtime.tracing.spans import NOTHING, Sink, Span, new_span_id, new_trace_id

__all__ = ["OFF", "Tracer"]


def _chance() -> float:
    return int.from_bytes(os.urandom(7), "big") / (1 << 56)


class Tracer:
    """The tracer of one process, whose spans go to ``sink``; ``None`` traces nothing. ``ratio`` is the share that is
    sampled, and ``chance`` gives numbers from 0 up to 1."""

    def __init__(
        self,
        sink: Sink | None,
        ratio: float = 1.0,
        *,
        trust_parent: bool = False,
        chance: Callable[[], float] = _chance,
    ) -> None:
        self.sink, self._ratio, self._trust_parent, self._chance = sink, ratio, trust_parent, chance

    def request(self, shape: Shape, what: str, parent: Context | None) -> Span:
        """A span of a request that names ``parent``, if it is sampled."""
        sink = self.sink
        if sink is None or not self._samples(parent) or not sink.admits():
            return NOTHING
        if parent is None:
            return Span(sink, shape, Context(new_trace_id(), new_span_id()), what=what)
        context = Context(parent.trace_id, new_span_id(), True, parent.state)
        return Span(sink, shape, context, parent.span_id, what=what, remote=True)

    def session(self, sink: Sink, parent: str, state: str) -> Span:
        """The span of a session for which signaling names the span ``parent``, as headers do; it goes to ``sink``."""
        context = parse([parent], [state]) if self.sink is not None and parent else None
        if context is None or not context.sampled:
            return NOTHING
        mine = Context(context.trace_id, new_span_id(), True, context.state)
        return Span(sink, SESSION, mine, context.span_id, remote=True)

    def _samples(self, parent: Context | None) -> bool:
        if parent is not None and (self._trust_parent or not parent.sampled):
            return parent.sampled
        return self._chance() < self._ratio


OFF = Tracer(None)
"""The tracer of a process that traces nothing."""
