"""The replay window: which of a peer's latest packet numbers have come (RFC 6347 section 4.1.2.6, RFC 3711 section
3.3.2). Pure."""

from __future__ import annotations

__all__ = ["ReplayWindow"]


class ReplayWindow:
    """``top`` is the highest number that came, and bit n of ``seen`` says whether ``top`` - n did. What is ``size`` or
    more behind counts as seen. Numbers do not wrap."""

    __slots__ = ("_full", "seen", "size", "top")

    def __init__(self, size: int, top: int = -1, seen: int = 0) -> None:
        self.size = size
        self.top = top
        self.seen = seen
        self._full = (1 << size) - 1

    def is_new(self, number: int) -> bool:
        """Whether ``number`` has not come yet, as far as the window can tell."""
        behind = self.top - number
        return behind < 0 or (behind < self.size and not self.seen >> behind & 1)

    def take(self, number: int) -> bool:
        """Whether ``number`` is new; it counts as seen from now on, so what bears it has to be authentic."""
        ahead = number - self.top
        if ahead == 1:
            self.seen = (self.seen << 1 | 1) & self._full
            self.top = number
            return True
        if ahead > 0:
            self.seen = (self.seen << min(ahead, self.size) | 1) & self._full
            self.top = number
            return True
        if not self.is_new(number):
            return False
        self.seen |= 1 << -ahead
        return True
