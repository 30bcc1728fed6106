"""A queue for a way that is full: it keeps order, and keeps nothing for long.

Late audio is useless. A queue that keeps everything makes all that follows late too, and one that refuses the newest
keeps what is latest of all; so what has waited longest goes, and what is left is as fresh as can be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["MAX_AGE_S", "Outbox"]

MAX_AGE_S = 0.06  # three frames of audio: a listener's jitter buffer makes up for hardly more
_MOST = 128
_MOST_BYTES = 2 << 20

Item = TypeVar("Item")


class Outbox(Generic[Item]):
    """Items in the order in which they came. ``lost(item)`` is told of each that goes because there were too many or
    because it waited too long. The object is false while nothing waits."""

    def __init__(
        self,
        lost: Callable[[Item], None],
        *,
        most: int = _MOST,
        most_bytes: int = _MOST_BYTES,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self._lost = lost
        self._most, self._most_bytes, self._max_age_s = most, most_bytes, max_age_s
        self._waiting: deque[tuple[float, int, Item]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: Item, size: int, now: float) -> None:
        """Queues ``item`` of ``size`` bytes at ``now`` (seconds, monotonic); the oldest go where it finds no room."""
        self._waiting.append((now, size, item))
        self._bytes += size
        while len(self._waiting) > self._most or (self._bytes > self._most_bytes and len(self._waiting) > 1):
            self._lost(self._next())

    def flush(self, give: Callable[[Item], Item | None], now: float) -> None:
        """Gives items away in order, without those that are too old. ``give`` returns what it could not take of an
        item, which goes on waiting with all behind it, or None."""
        while self._waiting:
            since, size, item = self._waiting[0]
            if now - since > self._max_age_s:
                self._lost(self._next())
                continue
            rest = give(item)
            if rest is not None:
                self._waiting[0] = (since, size, rest)
                return
            self._next()

    def clear(self) -> list[Item]:
        """Empties the queue and returns all that waited; nobody is told."""
        items = [item for _, _, item in self._waiting]
        self._waiting.clear()
        self._bytes = 0
        return items

    def _next(self) -> Item:
        _, size, item = self._waiting.popleft()
        self._bytes -= size
        return item
