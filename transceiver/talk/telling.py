"""The telling of one call's events to one process of an edge, and the count of what its clients say: numbers see to it
that each event gets there once when this process dies and another goes on with the call. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct

__all__ = ["Telling", "TellingState"]

_MOST, _MOST_BYTES = 256, 128 << 10  # that can be told again


class TellingState(Struct, frozen=True, array_like=True):
    """A telling as a value: the process of an edge, the number of the last event that it was told, the number of the
    last that came from there, and the last events that it may not have got."""

    who: bytes
    number: int
    taken: int
    recent: tuple[str, ...]


class Telling:
    """The way to one process, by ``send(text, number)``, which may wait but keeps order. ``number`` is that of the last
    event, ``taken`` of the last that came from there."""

    def __init__(self, send: Callable[[str, int], None]) -> None:
        self.number = 0
        self.taken = 0
        self._send = send
        self._recent: deque[str] = deque()
        self._recent_bytes = 0
        self._written = (0, 0)  # the last numbers when a state was written, and the time before that
        self._asleep = False

    def __call__(self, text: str, event: dict[str, Any], asked: str | None = None) -> None:
        """Tells an event, as ``watchers.Send``."""
        self.number += 1
        self._recent.append(text)
        self._recent_bytes += len(text)
        while len(self._recent) > _MOST or (self._recent_bytes > _MOST_BYTES and len(self._recent) > 1):
            self._recent_bytes -= len(self._recent.popleft())
        if not self._asleep:
            self._send(text, self.number)

    def took(self, number: int) -> None:
        """Takes note of an event that came."""
        self.taken = max(self.taken, number)

    def goes_on(self, after: int | None, sent: int) -> tuple[list[tuple[str, int]], bool]:
        """Tells on from now. Returns the events that came after the number ``after``, and whether some of these are
        lost. ``sent`` is the last number from there: one that is lower than ``taken`` is another process's."""
        self._asleep = False
        self.taken = min(self.taken, sent)
        if after is None or after >= self.number:
            return [], False
        first = self.number - len(self._recent) + 1
        return [(text, n) for n, text in enumerate(self._recent, first) if n > after], after + 1 < first

    def again(self, text: str, number: int) -> None:
        """Tells an event once more."""
        self._send(text, number)

    # --- as a value

    def export(self, who: bytes) -> TellingState:
        """All of it, and the events that had not been told for sure when the state before this one was written."""
        before, last = (0, 0) if self._asleep else self._written
        self._written = last, self.number
        new = min(len(self._recent), self.number - before)
        return TellingState(who, self.number, self.taken, tuple(self._recent)[len(self._recent) - new :])

    def take_up(self, state: TellingState) -> None:
        """Goes on where ``export`` left off. It sleeps until the process says that it goes on as well: who knows what
        has got there."""
        self.number, self.taken = state.number, state.taken
        self._recent.extend(state.recent)
        self._recent_bytes = sum(map(len, state.recent))
        self._asleep = True
