"""The trace of one session: its own span, the one of its present turn, and how many more it may have.

The span of the session is one, wherever the session goes on: a process that hands it over, or dies, leaves it to the
next one as part of the state, and whoever serves the session at its end sends it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from runtime.tracing.spans import NOTHING, Sink, Span, SpanState, now
from runtime.tracing.tracer import Tracer

__all__ = ["CallTrace", "TraceState"]

_MOST_SPANS = 4096  # of one session in one process: some hundred turns
_FAULTS = ("dtls_failed", "agent_failed", "session_failed", "overloaded")


class TraceState(Struct, frozen=True, array_like=True):
    """A trace as a value: the spans that have not ended."""

    session: SpanState
    turn: SpanState | None = None


class _Allowance:
    """The place that one session's spans go to, of which there are at most so many."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._left = sink, _MOST_SPANS
        self.here = True

    def admits(self) -> bool:
        self._left -= 1
        return self._left >= 0 and self._sink.admits()

    def put(self, span: Span) -> None:
        if self.here:
            self._sink.put(span)


class CallTrace:
    """The trace of one session. ``span`` is the session's, and ``turn`` that of the present turn; both are ``NOTHING``
    where it is not traced."""

    def __init__(self, span: Span = NOTHING, allowance: _Allowance | None = None) -> None:
        self.span = span
        self.turn = NOTHING
        self.before_end: Callable[[], None] = lambda: None  # of who has spans under way
        self._allowance = allowance

    @classmethod
    def begun(cls, tracer: Tracer, parent: str, state: str, call: str, agent: str, codec: str) -> CallTrace:
        """The trace of a session that begins, if signaling names a span as its ``parent``."""
        if tracer.sink is None or not parent:
            return cls()
        allowance = _Allowance(tracer.sink)
        span = tracer.session(allowance, parent, state)
        about = {"firsthop.call.id": call, "gen_ai.conversation.id": call, "gen_ai.agent.name": agent}
        span.put({**about, "firsthop.codec": codec})
        return cls(span, allowance)

    @classmethod
    def taken_up(cls, tracer: Tracer, state: TraceState | None) -> CallTrace:
        """The trace that ``export`` gave, of a session that is not here yet: see ``stays``. One that is not understood
        costs the trace and not the session."""
        if tracer.sink is None or state is None:
            return cls()
        allowance, at = _Allowance(tracer.sink), now()
        allowance.here = False
        try:
            made = cls(Span.taken_up(state.session, allowance, at, remote=True), allowance)
            if state.turn is not None:
                made.turn = Span.taken_up(state.turn, allowance, at, remote=False)
        except (KeyError, ValueError):  # another release's
            return cls()
        made.span.event("taken_up")
        return made

    def __bool__(self) -> bool:
        return bool(self.span)

    @property
    def present(self) -> Span:
        """The span under which what the agent does belongs."""
        return self.turn or self.span

    def stays(self) -> None:
        """Takes note that the session goes on here from now on."""
        if self._allowance is not None:
            self._allowance.here = True

    def end(self, reason: str, figures: dict[str, Any]) -> None:
        """Ends the session's span; ``figures`` are those of its media (``MediaStream.so_far``), if it has any."""
        span = self.span
        if not span:
            return
        self.before_end()
        span.put({"firsthop.end.reason": reason, **_quality(figures)})
        if reason in _FAULTS:
            span.fail(reason)
        span.end()

    def export(self) -> TraceState | None:
        """The spans that have not ended; None where there is no trace."""
        if not self.span:
            return None
        at = now()
        turn = self.turn.export(at) if self.turn and self.turn.ended is None else None
        return TraceState(self.span.export(at), turn)


def _quality(figures: dict[str, Any]) -> dict[str, Any]:
    if not figures:
        return {}
    heard, made = figures["heard"], figures["made"]
    return {
        "firsthop.media.packets_lost": figures["lost"],
        "firsthop.media.frames_heard": heard.get("heard", 0),
        "firsthop.media.frames_concealed": heard.get("concealed", 0),
        "firsthop.media.frames_on_time": made["on_time"],
        "firsthop.media.frames_late": made["late"],
        "firsthop.media.lost_down_ratio": figures["lost_share"],
        "firsthop.media.jitter_ms": figures["jitter_ms"],
        "firsthop.media.round_trip_ms": figures["round_trip_ms"],
    }
