"""The datagrams that were sent last, kept to be sent again: to a caller that asks (RFC 4585) or has moved. Pure.

The same protected datagram goes out: a receiver that has it already drops it as a replay (RFC 3711 section 3.3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rtc.rtp.state import HistoryState

__all__ = ["History"]

_KEPT = 64  # packets: 1.3 s of 20 ms frames
_MOST_TIMES = 3  # that one packet is sent again, however often it is asked for


class History:
    """The last 64 datagrams by sequence number."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, bytes] | None] = [None] * _KEPT
        self._times = [0] * _KEPT
        self._newest = 0

    def put(self, sequence: int, datagram: bytes) -> None:
        """Keeps a packet that is sent for the first time."""
        place = sequence % _KEPT
        self._kept[place] = sequence, datagram
        self._times[place] = 0
        self._newest = sequence

    def again(self, sequences: Iterable[int]) -> Iterator[bytes]:
        """Those of ``sequences`` that are kept and may be sent once more."""
        for sequence in sequences:
            place = sequence % _KEPT
            kept = self._kept[place]
            if kept is not None and kept[0] == sequence and self._times[place] < _MOST_TIMES:
                self._times[place] += 1
                yield kept[1]

    def last(self, count: int) -> Iterator[bytes]:
        """The last ``count`` datagrams, oldest first."""
        for sequence in range(self._newest - count + 1, self._newest + 1):
            kept = self._kept[sequence % _KEPT]
            if kept is not None and kept[0] == sequence & 0xFFFF:
                yield kept[1]

    # --- as a value

    def export(self) -> HistoryState:
        """All of it."""
        newest = self._newest
        places = [sequence % _KEPT for sequence in range(newest - _KEPT + 1, newest + 1)]
        kept = [(*slot, self._times[place]) for place in places if (slot := self._kept[place]) is not None]
        return HistoryState(newest, [(sequence, times, datagram) for sequence, datagram, times in kept])

    def take_up(self, state: HistoryState) -> None:
        """Goes on where ``export`` left off."""
        for sequence, times, datagram in state.kept:
            self.put(sequence, datagram)
            self._times[sequence % _KEPT] = times
        self._newest = state.newest
