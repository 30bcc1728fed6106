"""The turns that agents are asked to answer: how many wait for their first sound, and how long that took of late.

An agent that calls a model elsewhere is as slow as that is. Edges learn it by the transceiver's reports, and place
calls by it.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from runtime.distribution import Distribution
from runtime.families import media
from runtime.tracing.spans import NOTHING, Span, Value

__all__ = ["TURNS", "Turn", "Turns", "Waiting", "tokens"]

_OF_LATE = 64  # turns
_OF_LATE_S = 60.0


class Waiting(NamedTuple):
    """The turns of one model: how many wait now, and the median time to the first sound, None where none was heard."""

    turns: int
    latency_ms: float | None


class Turns:
    """The turns of all sessions, by model. Agents report from any thread."""

    def __init__(self) -> None:
        self.first_audio = Distribution(media.FIRST_AUDIO)
        self._live: defaultdict[str, set[Turn]] = defaultdict(set)
        self._heard: defaultdict[str, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=_OF_LATE))

    def asked(self, model: str, now: float, span: Span = NOTHING) -> Turn:
        """A turn that ``model`` is asked to answer at ``now``, in seconds, monotonic; ``span`` is that of the response,
        and ends with it."""
        turn = Turn(self._live[model], self._heard[model], now, partial(self.first_audio.add, value=model), span)
        self._live[model].add(turn)
        return turn

    def waiting(self, model: str, now: float) -> Waiting:
        """The state of that model's turns."""
        if model not in self._live:
            return Waiting(0, None)
        late = [ms for at, ms in list(self._heard[model]) if now - at <= _OF_LATE_S]
        return Waiting(len(self._live[model]), statistics.median(late) if late else None)


class Turn:
    """A turn that waits until it is ``heard`` or ``over``, whichever comes first; later calls change nothing."""

    __slots__ = ("_asked_at", "_heard", "_live", "_took", "span")

    def __init__(
        self,
        live: set[Turn],
        heard: deque[tuple[float, float]],
        asked_at: float,
        took: Callable[[float], None],
        span: Span = NOTHING,
    ) -> None:
        self._live, self._heard, self._asked_at, self._took = live, heard, asked_at, took
        self.span = span

    @classmethod
    def nobodys(cls) -> Turn:
        """A turn that is over."""
        return cls(set(), deque(), 0.0, lambda seconds: None)

    def heard(self, now: float) -> None:
        """Takes note of the first sound, or of the first words of a written answer."""
        if self in self._live:
            self._live.discard(self)
            took_s = max(0.0, now - self._asked_at)
            self._heard.append((now, 1000 * took_s))
            self._took(took_s)
            self.span.put({"gen_ai.response.time_to_first_chunk": took_s})

    def over(self, status: str = "left", *, error: str = "", usage: dict[str, Any] | None = None) -> None:
        """Takes note that nobody waits for it any more, and with which ``status`` the response ended."""
        self._live.discard(self)
        span = self.span
        if span and span.ended is None:
            span.put({"firsthop.response.status": status, **tokens(usage)})
            if error:
                span.fail(error)
            span.end()


def tokens(usage: dict[str, Any] | None) -> dict[str, Value | None]:
    """The tokens that a model says it used, as attributes; it may say them as the Realtime API does, or as chat
    completions do."""
    found: dict[str, Value | None] = {}
    for name, other in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")):
        count = (usage or {}).get(name, (usage or {}).get(other))
        if type(count) is int and count >= 0:
            found[f"gen_ai.usage.{name}"] = count
    return found


TURNS = Turns()
