"""The stopwatch of one call's setup, by phase: what passes between its answer and the first audio of its caller."""

from __future__ import annotations

from runtime.tracing.shapes import SETUP as SPAN
from runtime.tracing.spans import NOTHING, Span
from transceiver.counters import SETUP

__all__ = ["Setup"]

_PHASES = ("ice", "dtls", "audio")


class Setup:
    """The stopwatch. Times are monotonic, in seconds; each phase is entered in the process's histogram once, and in
    their order alone, and is a span under the session's ``span``. A call that began in another process enters
    nothing."""

    __slots__ = ("_began", "_done", "_last", "_span")

    def __init__(self, now: float, span: Span = NOTHING) -> None:
        self._began = self._last = now
        self._span = span
        self._done = 0

    def proven(self, now: float) -> None:
        """Takes note of the first path that is proven."""
        self._end("ice", now)

    def secured(self, now: float) -> None:
        """Takes note that the keys are there."""
        if self._end("dtls", now):
            SETUP.add(now - self._began, "total")

    def heard(self, now: float) -> None:
        """Takes note of audio that authenticated."""
        self._end("audio", now)

    def _end(self, phase: str, now: float) -> bool:
        if self._done >= len(_PHASES) or _PHASES[self._done] != phase:
            return False
        SETUP.add(now - self._last, phase)
        self._span.child(SPAN, phase, at=self._last).end(now)
        self._done += 1
        self._last = now
        return True
