"""A token bucket: it allows a steady rate and a burst. Pure; times are seconds."""

from __future__ import annotations

__all__ = ["Bucket"]


class Bucket:
    """A bucket of tokens: it gains ``per_s`` a second, holds at most ``burst``, and is full to begin with."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._at = float("-inf")

    def has(self, now: float, cost: float = 1.0) -> bool:
        """Whether ``cost`` tokens are there now."""
        return self._left >= cost or self._filled(now) >= cost

    def take(self, now: float, cost: float = 1.0) -> bool:
        """Takes ``cost`` tokens, or takes none and returns False where there are fewer."""
        left = self._left
        if now > self._at:  # as ``_filled`` does, and takes a call less of what is done for each datagram
            left += (now - self._at) * self._per_s
            if left > self._burst:
                left = self._burst
            self._at = now
        if left < cost:
            self._left = left
            return False
        self._left = left - cost
        return True

    def _filled(self, now: float) -> float:
        """The tokens that are there now."""
        # A clock that goes back gives nothing and takes nothing.
        if now > self._at:
            left = self._left + (now - self._at) * self._per_s
            self._left = left if left < self._burst else self._burst
            self._at = now
        return self._left
