"""The rhythm in which a socket is looked at: how long datagrams may wait for one another. Pure.

Being woken costs more than a datagram. Up to some 35 calls each datagram is taken at once, and those that come
meanwhile with it. Beyond that they are taken in rounds, which are as far apart as a conversation that is passed on can
spare, and half as far as frames are due: every other round is made by the same waking as frames. Where all media waits
for the clock of its call anyway there is no rhythm (``Expressway.look_by_clock``). The workers have a rule like this
(``edge/relay/rounds.py``).
"""

from __future__ import annotations

from rtc.pacer import PHASE_S

__all__ = ["Rhythm"]

_BUSY_HZ = 1800.0  # datagrams a second
_IDLE_HZ = 1400.0
_ROUND_S = PHASE_S / 2
_WINDOW_S = 0.02


class Rhythm:
    """The rhythm of one socket. Times are in seconds of one monotonic clock."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._counted = 0
        self._busy = False

    def wait(self, count: int, now: float) -> float:
        """The seconds between looks from now on, after one that found ``count`` datagrams; 0: as soon as something
        comes."""
        self._counted += count
        elapsed_s = now - self._since
        if elapsed_s >= _WINDOW_S:
            self._busy = self._counted >= elapsed_s * (_IDLE_HZ if self._busy else _BUSY_HZ)
            self._since, self._counted = now, 0
        return _ROUND_S if self._busy else 0.0
