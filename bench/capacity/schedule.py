"""The schedule of a call as its caller sees it: which frames came later than their timestamps say, or never. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rtc.frame import FRAME_S, FRAMES_PER_S, frame_samples

__all__ = ["LATE_S", "Arrivals", "Frames"]

LATE_S = 0.005 + FRAME_S
"""A frame later than that is late: 5 ms, and what a frame lasts."""
_CLOCK_HZ = 48000
_FRAME_TICKS = frame_samples(_CLOCK_HZ)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of calls: those that were ``due``, and of these the ``late`` and the ``lost``."""

    due: int = 0
    late: int = 0
    lost: int = 0

    def __add__(self, other: Frames) -> Frames:
        return Frames(self.due + other.due, self.late + other.late, self.lost + other.lost)

    @property
    def kept(self) -> float:
        """The share that came in time; 1 where nothing was due."""
        return 1 - (self.late + self.lost) / self.due if self.due else 1.0


@dataclass
class Arrivals:
    """The packets that came back in one call: RTP ``sequences`` and ``timestamps``, and when each came, in seconds. For
    an agent that sends a packet when it gets one, ``sent`` has when that was; for one with a clock of its own it is
    empty."""

    sequences: list[int] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    came: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)

    def frames(self, begin: float, end: float) -> Frames:
        """The frames that were due between these times. The call went on from before until after them."""
        came, ticks = np.array(self.came), _unwrapped(self.timestamps, 1 << 32)
        if not len(came):
            return _all_lost(begin, end)
        # What an echo did not get has no number of its own.
        numbered = ticks // _FRAME_TICKS if self.sent else _unwrapped(self.sequences, 1 << 16)
        order = np.argsort(numbered, kind="stable")
        sequences, came = numbered[order], came[order]
        due_at = (np.array(self.sent) if self.sent else ticks / _CLOCK_HZ)[order]
        late = came - due_at - _usual(came - due_at)
        inside = (came - late >= begin) & (came - late < end)
        if not inside.any():
            return _all_lost(begin, end)
        numbers = np.unique(sequences[inside])
        # What is missing inside, and before the first or after the last of them.
        lost = int(numbers[-1] - numbers[0] + 1) - len(numbers)
        first, last = float((came - late)[inside].min()), float((came - late)[inside].max())
        outside = max(0.0, first - begin - LATE_S) + max(0.0, end - last - LATE_S)
        lost += int(outside / FRAME_S)
        return Frames(len(numbers) + lost, int(np.sum(late[inside] > LATE_S)), lost)


def _all_lost(begin: float, end: float) -> Frames:
    due = round((end - begin) * FRAMES_PER_S)
    return Frames(due, 0, due)


def _usual(transit: Floats) -> Floats:
    """The least transit of the second up to each packet: a server that left frames out goes on that much later for
    good, and is late for the second in which a caller would get used to it."""
    padded = np.concatenate([np.full(FRAMES_PER_S - 1, np.inf), transit])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, FRAMES_PER_S).min(axis=1), np.float64)


def _unwrapped(numbers: Sequence[int], modulus: int) -> npt.NDArray[np.int64]:
    if not numbers:
        return np.zeros(0, np.int64)
    values = np.array(numbers, np.int64)
    steps = (np.diff(values) + modulus // 2) % modulus - modulus // 2
    return np.concatenate([[0], np.cumsum(steps)]).astype(np.int64)
