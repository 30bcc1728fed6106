"""The share of the loop that one session may use for what its peer sends over DTLS, because the peer chooses how much
that is.
"""

from __future__ import annotations

import asyncio
import time

__all__ = ["Share"]

_SLICE_S = 0.0005  # at once; then what is due to others comes first
_RATE = 0.2  # of a core, in the long run
_BURST_S = 0.1  # a handshake is 2 ms of it, a megabyte's message 60 ms


class Share:
    """A leaky bucket of CPU seconds. Call ``begin`` when there is work, and ``rest`` between its parts and after it: it
    lets the loop go where a slice is used up, for as long as it takes until the session is back within its rate."""

    def __init__(self) -> None:
        self._used = 0.0
        self._at = time.monotonic()
        self._began = 0.0

    def begin(self) -> None:
        """Starts the clock: work goes on from here."""
        self._began = time.thread_time()

    async def rest(self, *, done: bool = False) -> None:
        """Charges the work so far, and waits if the session is over its rate. ``done`` says that nothing follows at
        once, so that less than a slice is charged too."""
        spent = time.thread_time() - self._began
        if spent < _SLICE_S and not done:
            return
        now = time.monotonic()
        self._used = max(0.0, self._used - _RATE * (now - self._at)) + spent
        self._at = now
        over_s = (self._used - _BURST_S) / _RATE
        if over_s > 0 or spent >= _SLICE_S:
            await asyncio.sleep(max(over_s, 0))
        self._began = time.thread_time()
