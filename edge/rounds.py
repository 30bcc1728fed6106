"""When a worker's next round begins: how long datagrams wait for one another. Pure.

A round costs some dozens of microseconds before it touches the first datagram, so what it handles decides what each
datagram costs. No two rounds begin within a time that bounds what a datagram waits; what comes alone waits for nothing.
"""

from __future__ import annotations

__all__ = ["Rounds"]

# A round of few datagrams costs hardly less than one of many: so some dozens of calls wait for one another the longest,
# and a loaded core a little longer again.
_SPARSE_S, _USUAL_S, _LOADED_S = 0.0012, 0.0006, 0.001
_SPARSE, _LOADED = 6, 64  # datagrams in a round: fewer than the first, or at least the second
# Where rounds are rarer than this on average, nothing waits at all. One that is longer counts as _LONGEST_S.
_IDLE_S, _LONGEST_S = 0.0025, 0.02
_WEIGHT = 1 / 16


class Rounds:
    """Times are in seconds of one monotonic clock."""

    __slots__ = ("_apart", "_began")

    def __init__(self, now: float) -> None:
        self._began = now
        self._apart = _LONGEST_S

    def begin(self, now: float) -> None:
        """A round begins."""
        self._apart += (min(now - self._began, _LONGEST_S) - self._apart) * _WEIGHT
        self._began = now

    def wait(self, handled: int, now: float) -> float:
        """How long the next one waits, after one that handled so many datagrams; nothing where it is not positive."""
        if self._apart >= _IDLE_S:
            return 0.0
        least = _SPARSE_S if handled < _SPARSE else _USUAL_S if handled < _LOADED else _LOADED_S
        return self._began + least - now
