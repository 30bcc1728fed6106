"""Spans as they are made: what began and ended when, under which parent, with which attributes.

Times are monotonic, in seconds. A span that is not sampled is ``NOTHING``: whoever makes spans need not ask.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from runtime.tracing.context import Context
from runtime.tracing.shapes import BY_NAME, Shape

__all__ = ["NOTHING", "Event", "Sink", "Span", "SpanState", "Value", "new_span_id", "new_trace_id", "now"]

Value = str | bool | int | float
Event = tuple[str, float, dict[str, Value]]  # its name and time, and its attributes
now = time.monotonic

_MOST_ATTRIBUTES, _MOST_EVENTS = 32, 32  # of one span
_MOST_TEXT = 256  # characters of a name or a value


class Sink(Protocol):
    """The place that spans go to when they have ended. Any thread may use it."""

    def admits(self) -> bool:
        """Whether there may be another span."""

    def put(self, span: Span) -> None:
        """Takes a span that has ended."""


class SpanState(Struct, frozen=True, array_like=True):
    """A span that has not ended, as a value. Times are ages in seconds."""

    shape: str
    name: str
    context: tuple[str, str, str]  # trace and span in hexadecimal digits, tracestate
    parent: str
    age_s: float
    attributes: dict[str, Value]
    events: list[tuple[str, float, dict[str, Value]]]


def new_span_id() -> int:
    """A random id of 64 bits, not 0."""
    return int.from_bytes(os.urandom(8), "big") or 1


def new_trace_id() -> int:
    """A random id of 128 bits, not 0."""
    return int.from_bytes(os.urandom(16), "big") or 1


class Span:
    """A span of ``shape``, in whose name ``what`` stands. It is sampled, and goes to ``sink`` when it ends.

    ``parent_id`` is 0 where it has no parent. ``epoch_ns`` is the wall clock's time at which the monotonic clock was 0,
    and the same for all spans that one process makes of a trace: a wall clock that is set tears none apart.
    """

    __slots__ = (
        "_sink",
        "attributes",
        "began",
        "context",
        "ended",
        "epoch_ns",
        "error",
        "events",
        "name",
        "parent_id",
        "remote",
        "shape",
    )

    def __init__(
        self,
        sink: Sink,
        shape: Shape,
        context: Context,
        parent_id: int = 0,
        *,
        what: str = "",
        at: float | None = None,
        epoch_ns: int | None = None,
        remote: bool = False,
    ) -> None:
        self._sink, self.shape, self.context, self.parent_id, self.remote = sink, shape, context, parent_id, remote
        self.name = shape.name.replace("{}", what[:_MOST_TEXT]) if what else shape.name
        self.began = now() if at is None else at
        self.ended: float | None = None
        self.epoch_ns = time.time_ns() - time.monotonic_ns() if epoch_ns is None else epoch_ns
        self.attributes: dict[str, Value] = {}
        self.events: list[Event] = []
        self.error = ""

    def __bool__(self) -> bool:
        return True

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request to another server that belongs to this span."""
        return self.context.headers

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a line of the log that belongs to this span."""
        return {"trace_id": f"{self.context.trace_id:032x}"}

    def child(
        self,
        shape: Shape,
        what: str = "",
        attributes: Mapping[str, Value | None] | None = None,
        *,
        at: float | None = None,
    ) -> Span:
        """A span under this one, unless there are too many."""
        if not self._sink.admits():
            return NOTHING
        mine = self.context
        context = Context(mine.trace_id, new_span_id(), True, mine.state)
        made = Span(self._sink, shape, context, mine.span_id, what=what, at=at, epoch_ns=self.epoch_ns)
        if attributes:
            made.put(attributes)
        return made

    def put(self, attributes: Mapping[str, Value | None]) -> None:
        """Sets attributes; those without a value are left out, and so is what is too much."""
        for name, value in attributes.items():
            if value is not None and (name in self.attributes or len(self.attributes) < _MOST_ATTRIBUTES):
                self.attributes[name] = value[:_MOST_TEXT] if isinstance(value, str) else value

    def event(self, name: str, attributes: Mapping[str, Value | None] | None = None) -> None:
        """Takes note of what happens now; of too many such events the first ones stay."""
        if len(self.events) < _MOST_EVENTS:
            known = {key: value for key, value in (attributes or {}).items() if value is not None}
            self.events.append((name, now(), known))

    def fail(self, error: str) -> None:
        """Takes note of an error, by a word that programs know."""
        self.error = self.error or error[:_MOST_TEXT]
        self.put({"error.type": self.error})

    def end(self, at: float | None = None) -> None:
        """Ends it, once."""
        if self.ended is None:
            self.ended = max(self.began, now() if at is None else at)
            self._sink.put(self)

    # --- as a value

    def export(self, at: float) -> SpanState:
        """All of it, at ``at``."""
        context = f"{self.context.trace_id:032x}", f"{self.context.span_id:016x}", self.context.state
        events = [(name, at - when, attributes) for name, when, attributes in self.events]
        parent = f"{self.parent_id:016x}"
        return SpanState(self.shape.name, self.name, context, parent, at - self.began, dict(self.attributes), events)

    @classmethod
    def taken_up(cls, state: SpanState, sink: Sink, at: float, *, remote: bool) -> Span:
        """The span that ``export`` gave. Raises ValueError where it is none."""
        trace, span, tracestate = state.context
        context = Context(int(trace, 16), int(span, 16), True, tracestate)
        made = cls(sink, BY_NAME[state.shape], context, int(state.parent, 16), at=at - state.age_s, remote=remote)
        made.name = state.name
        made.put(state.attributes)
        made.events += [(name, at - age_s, attributes) for name, age_s, attributes in state.events[:_MOST_EVENTS]]
        return made


class _Nobody:
    def admits(self) -> bool:
        return False

    def put(self, span: Span) -> None:
        pass


class _Nothing(Span):
    """A span that is not made. It has no children, because nobody admits them."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    @property
    def headers(self) -> dict[str, str]:
        return {}

    @property
    def fields(self) -> dict[str, str]:
        return {}

    def put(self, attributes: Mapping[str, Value | None]) -> None:
        pass

    def event(self, name: str, attributes: Mapping[str, Value | None] | None = None) -> None:
        pass

    def fail(self, error: str) -> None:
        pass

    def end(self, at: float | None = None) -> None:
        pass


NOTHING: Span = _Nothing(_Nobody(), Shape("nothing", "internal", "", "", ""), Context(1, 1, False), epoch_ns=0)
