"""The turns that agents are asked to answer: how many wait for their first sound, and how long that took of late.

An agent that calls a model elsewhere is as slow as that is. Edges learn it by the transceiver's reports, and place
calls by it.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from runtime.distribution import Distribution
from runtime.families import media

__all__ = ["TURNS", "Turn", "Turns", "Waiting"]

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

    def asked(self, model: str, now: float) -> Turn:
        """A turn that ``model`` is asked to answer at ``now``, in seconds, monotonic."""
        turn = Turn(self._live[model], self._heard[model], now, partial(self.first_audio.add, value=model))
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

    __slots__ = ("_asked_at", "_heard", "_live", "_took")

    def __init__(
        self, live: set[Turn], heard: deque[tuple[float, float]], asked_at: float, took: Callable[[float], None]
    ) -> None:
        self._live, self._heard, self._asked_at, self._took = live, heard, asked_at, took

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

    def over(self) -> None:
        """Takes note that nobody waits for it any more."""
        self._live.discard(self)


TURNS = Turns()
