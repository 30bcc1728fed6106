"""The memory of refusals for want of room: whoever asks again a moment later is refused at once. Pure.

A fleet that is full is asked by everybody whom it refused, again and again. Each of these requests would be a round
trip to a few transceivers, and an offer for each to read, which their calls would pay for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

__all__ = ["FRESH_S", "Fullness"]

FRESH_S = 0.25  # for which a place that nobody has told of may stay free
_MOST = 1024


class Fullness:
    """The last refusals, with why, by what was ``asked``. Each stands for a moment, and only while no call ends."""

    def __init__(self) -> None:
        self._refused: OrderedDict[Hashable, tuple[float, int, str]] = OrderedDict()

    def put(self, asked: Hashable, why: str, now: float, ended: int) -> None:
        """Takes note that all who could be asked have refused, at ``now`` (seconds), when so many calls had ended."""
        self._refused[asked] = now + FRESH_S, ended, why
        self._refused.move_to_end(asked)
        if len(self._refused) > _MOST:
            self._refused.popitem(last=False)

    def get(self, asked: Hashable, now: float, ended: int) -> str:
        """Why it would be refused again, or nothing where it might not be."""
        until, before, why = self._refused.get(asked, (0.0, 0, ""))
        return why if now < until and ended == before else ""

    def clear(self) -> None:
        """Forgets everything: somebody has said that there is room."""
        self._refused.clear()
