"""The requests for missing packets: generic NACK (RFC 4585 section 6.2.1). Pure; times are seconds.

A gap is asked for as soon as it is seen, if the packet can still be here before it is to be played, and again a round
trip later, three times at most. A packet that merely changed places is asked for in vain; that costs one packet.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from rtc.rtp.packet import sequence_distance
from rtc.rtp.state import MissingState

__all__ = ["Missing", "pack"]

_MOST_TIMES = 3
_MOST_MISSING = 32
_AGAIN_S = 0.02
_RTPFB, _NACK = 205, 1


def pack(sender: int, media: int, lost: Iterable[int]) -> bytes:
    """The RTCP packet that asks the source ``media`` for the sequence numbers ``lost``, which are in order."""
    pairs: list[list[int]] = []
    for sequence in lost:
        ahead = (sequence - pairs[-1][0] - 1) & 0xFFFF if pairs else 16
        if ahead < 16:
            pairs[-1][1] |= 1 << ahead
        else:
            pairs.append([sequence, 0])
    head = struct.pack("!BBHII", 0x80 | _NACK, _RTPFB, 2 + len(pairs), sender, media)
    return head + b"".join(struct.pack("!HH", *pair) for pair in pairs)


class Missing:
    """The gaps of one stream. ``fresh`` says that there is a new one."""

    def __init__(self) -> None:
        self.fresh = False
        self._highest: int | None = None
        self._wanted: dict[int, tuple[int, float]] = {}  # how often it was asked for, and when last

    @property
    def waits(self) -> bool:
        """Whether anything is missing, or is to be looked at."""
        return self.fresh or bool(self._wanted)

    def restart(self) -> None:
        """Tells that another stream begins."""
        self._highest = None
        self._wanted.clear()

    def came(self, sequence: int) -> bool:
        """Tells of a packet that came, in whatever way. Returns whether it had been asked for."""
        if self._highest is None:
            self._highest = sequence
            return False
        ahead = sequence_distance(self._highest, sequence)
        if ahead <= 0:
            wanted = self._wanted.pop(sequence, None)
            return wanted is not None and wanted[0] > 0
        self._highest = sequence
        if ahead > 1:
            if ahead > _MOST_MISSING:
                self._wanted.clear()  # an outage: nobody waits for all that
                return False
            for i in range(ahead - 1, 0, -1):
                self._wanted[(sequence - i) & 0xFFFF] = (0, 0.0)
            while len(self._wanted) > _MOST_MISSING:
                del self._wanted[next(iter(self._wanted))]
            self.fresh = True
        return False

    def due(self, now: float, return_ms: float | None, until_due_ms: Callable[[int, float], float]) -> list[int]:
        """The sequence numbers to ask for now. ``return_ms`` is how long an answer takes, None where that is not known;
        ``until_due_ms(sequence, now)`` says how long a packet may take."""
        self.fresh = False
        if not self._wanted:
            return []
        asked = []
        pause = max(_AGAIN_S, (return_ms or 0.0) * 0.0015)
        for sequence, (times, at) in tuple(self._wanted.items()):
            left = until_due_ms(sequence, now)
            if left <= 0 or times >= _MOST_TIMES:
                del self._wanted[sequence]
            elif left > (return_ms or 0.0) and (not times or now - at >= pause):
                self._wanted[sequence] = (times + 1, now)
                asked.append(sequence)
        return asked

    # --- as a value

    def export(self, now: float) -> MissingState:
        """All of it."""
        return MissingState(self._highest, [(n, times, now - at) for n, (times, at) in self._wanted.items()])

    def take_up(self, state: MissingState, now: float) -> None:
        """Goes on where ``export`` left off."""
        self._highest = state.highest
        self._wanted = {sequence: (times, now - age_s) for sequence, times, age_s in state.wanted[-_MOST_MISSING:]}
