"""The events of one call that is watched from here, by number, so that each gets there once when its transceiver dies
and another process goes on with the call. Pure; times are in seconds.

A transceiver numbers what it says to this process of the call, and this process what its clients say. What comes again
is passed over. What clients said lately is remembered: the process that goes on tells how much of it is known to it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["Said", "Watched"]

_REMEMBERED_S = 5.0  # a transceiver keeps its calls twice a second
_MOST, _MOST_BYTES = 256, 1 << 20


@dataclass(frozen=True, slots=True)
class Said:
    """An event of a client's, with its number."""

    number: int
    text: str
    at: float


class Watched:
    """The events of one call. ``after`` is the number of the last event that came, or None where that is unknown;
    ``sent`` of the last that a client said."""

    def __init__(self) -> None:
        self.after: int | None = None
        self.sent = 0
        self.numbered = False  # whether the transceiver knows of numbers
        self._recent: deque[Said] = deque()
        self._bytes = 0
        self._forgotten = 0  # the last that had to be forgotten too early
        self._said_again = 0

    def begins(self, number: int | None) -> None:
        """Takes note that events come from now on, behind ``number``; None where they have none."""
        self.numbered = number is not None
        if number == 0 and self.after is None:
            self.after = 0

    def came(self, number: int) -> bool:
        """Whether an event with that number is new; 0 is no number."""
        if not number:
            return True
        if self.after is not None and number <= self.after:
            return False
        self.after = number
        return True

    def say(self, text: str, now: float) -> Said:
        """Numbers an event of a client's, and remembers it."""
        self.sent += 1
        said = Said(self.sent, text, now)
        if self.numbered:
            self._recent.append(said)
            self._bytes += len(text)
            while self._recent and now - self._recent[0].at > _REMEMBERED_S:
                self._forget()
            while len(self._recent) > _MOST or self._bytes > _MOST_BYTES:
                self._forgotten = self._forget().number
        return said

    def was_said_again(self, said: Said) -> bool:
        """Whether that event went to another process already, because it was not known there."""
        return said.number <= self._said_again

    def unknown(self, taken: int) -> tuple[list[Said], bool]:
        """What is to be said again to a process that knows of the events up to ``taken``, and whether something before
        that is lost."""
        again = [said for said in self._recent if said.number > taken]
        if again:
            self._said_again = again[-1].number
        return again, self._forgotten > taken

    def moved(self) -> None:
        """Takes note that another transceiver has the call, which numbers from 1 on, and has what was said before."""
        self.after = 0 if self.numbered else None
        self._recent.clear()
        self._bytes = self._forgotten = 0

    def _forget(self) -> Said:
        said = self._recent.popleft()
        self._bytes -= len(said.text)
        return said
