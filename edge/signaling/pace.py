"""The pace of one WebSocket: a client that sends too fast is read more slowly, and TCP tells it so."""

from __future__ import annotations

__all__ = ["Pace"]

_RATE = 4 << 20  # bytes a second: 50 times what a voice makes as base64 PCM at 24 kHz
_BURST = 32 << 20
_EACH = 16 << 10  # what an event costs beside its bytes


class Pace:
    """A token bucket that may go below empty."""

    def __init__(self, rate: int = _RATE, burst: int = _BURST, each: int = _EACH) -> None:
        self._rate, self._burst, self._each = rate, burst, each
        self._left = float(burst)
        self._at: float | None = None

    def wait_s(self, size: int, now: float) -> float:
        """Charges an event of ``size`` bytes at ``now`` (seconds), and returns how long to wait before the next is
        read."""
        if self._at is not None:
            self._left = min(float(self._burst), self._left + (now - self._at) * self._rate)
        self._at = now
        self._left -= size + self._each
        return max(0.0, -self._left / self._rate)
