"""The rhythm in which a socket is looked at: how long datagrams may wait for one another. Pure.

Being woken costs more than the datagram. While few come, each is taken at once. Under load they are taken in rounds,
which are as far apart as a conversation that is passed on can spare; or further, where the media of every call waits
for the 20 ms clock of that call anyway. The workers have the same rule (``edge/relay/rounds.py``).
"""

from __future__ import annotations

__all__ = ["Rhythm"]

_BUSY_HZ = 300.0  # datagrams a second: some five calls
_IDLE_HZ = 200.0
_ROUND_S, _LONGEST_S = 0.0016, 0.005
_WINDOW_S = 0.02


class Rhythm:
    """The rhythm of one socket. Times are in seconds of one monotonic clock; ``spare_s`` is how long the media of every
    call can wait."""

    def __init__(self, now: float) -> None:
        self.spare_s = 0.0
        self._since = now
        self._counted = 0
        self._busy = False

    def wait(self, count: int, now: float) -> float:
        """The seconds until the next look, after one that found ``count`` datagrams; 0: as soon as something comes."""
        self._counted += count
        elapsed_s = now - self._since
        if elapsed_s >= _WINDOW_S:
            self._busy = self._counted >= elapsed_s * (_IDLE_HZ if self._busy else _BUSY_HZ)
            self._since, self._counted = now, 0
        return min(max(_ROUND_S, self.spare_s), _LONGEST_S) if self._busy else 0.0
