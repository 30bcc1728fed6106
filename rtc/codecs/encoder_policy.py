"""The effort of an encoder, chosen by how late the call's clock is and by the loss that the caller reports. Pure.

Where the 20 ms clock comes late by more than half a frame three times in half a second, the process has too much to do:
encoding gets cheaper a step at a time, long before a whole frame is late, and dearer again after ten calm seconds.

While packets are lost each carries a copy of the one before it (in-band FEC). Only Opus's voice mode can do that; it
costs more, so it is used for as long as there is loss and at a low complexity: measured at 24 kHz, in us a frame, 153,
125, 53 and 50 at complexity 5, 3, 1 and 0. Low delay takes 32, 23, 21 and 16, and sounds best at 0: at 32 kbit/s PESQ
gives that 3.04 for speech, and 2.51 to 2.67 to the others, which filter by pitch.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from rtc.frame import FRAME_S

__all__ = ["EncoderPolicy", "PolicyState", "Settings"]

_LATE_S, _CALM_S = 0.010, 0.005
_LATE_TICKS, _OF_TICKS = 3, 25
_UP_AFTER_TICKS = 500
_HOPELESS_S = 0.2
_WINDOW_TICKS = 500
_LOSSY, _CLEAN = 0.02, 0.005
_MOST_PERCENT = 30
# Bitrate, and complexity where packets carry copies.
_STEPS = ((32000, 1), (28000, 0), (24000, 0))


class Settings(NamedTuple):
    """The settings of an encoder. ``loss_percent`` is the loss that it should expect; 0 means that it writes no
    copies."""

    bitrate_bps: int = 32000
    complexity: int = 0
    loss_percent: int = 0


class PolicyState(Struct, frozen=True, array_like=True):
    """The choice as a value. How late the clock is, is the matter of a process, and not in it."""

    on_time: int
    late: int
    step: int
    loss: float
    resilient: bool


class EncoderPolicy:
    """The choice of ``settings``, after each ``tick`` of the call's clock and each ``reported`` loss. ``copies`` says
    whether the caller can use copies; ``late`` counts the ticks that came more than 5 ms late, ``on_time`` the others.
    """

    def __init__(self, *, copies: bool) -> None:
        self.settings = Settings()
        self.on_time = self.late = 0
        self._copies = copies
        self._frames = 0
        # The least that the clock was ahead of counted frames by, in this window and the one before.
        self._least = self._least_before = float("inf")
        self._ticks = self._late = self._calm = 0
        self._step = 0
        self._loss = 0.0
        self._resilient = False

    def tick(self, now: float) -> None:
        """Tells that the clock came at ``now``, in seconds."""
        frames = self._frames
        offset = now - frames * FRAME_S
        self._frames = frames = frames + 1
        if offset < self._least:
            self._least = offset
        late = offset - (self._least if self._least < self._least_before else self._least_before)
        if late > _HOPELESS_S:
            # A pause in which nothing was due.
            self._least = self._least_before = offset
            late = 0.0
        elif frames % _WINDOW_TICKS == 0:
            self._least, self._least_before = offset, self._least
        self._ticks += 1
        if late > _LATE_S:
            self._late += 1
        if late < _CALM_S:
            self.on_time += 1
            self._calm += 1
        else:
            self.late += 1
            self._calm = 0
        if self._late >= _LATE_TICKS:
            self._move(1)
        elif self._calm >= _UP_AFTER_TICKS:
            self._move(-1)
        elif self._ticks >= _OF_TICKS:
            self._ticks = self._late = 0

    def reported(self, fraction_lost: float) -> None:
        """Tells the loss that the caller reported last, 0 to 1; it comes about once a second."""
        self._loss = max(fraction_lost, self._loss + (fraction_lost - self._loss) / 8)
        if self._copies:
            self._resilient = self._loss > (_CLEAN if self._resilient else _LOSSY)
        self._set()

    def _move(self, by: int) -> None:
        self._ticks = self._late = self._calm = 0
        self._step = min(max(self._step + by, 0), len(_STEPS) - 1)
        self._set()

    def _set(self) -> None:
        bitrate_bps, with_copies = _STEPS[self._step]
        if self._resilient:
            percent = min(max(round(self._loss * 100), 1), _MOST_PERCENT)
            self.settings = Settings(bitrate_bps, with_copies, percent)
        else:
            self.settings = Settings(bitrate_bps)

    # --- as a value

    def export(self) -> PolicyState:
        """What was chosen, and why."""
        return PolicyState(self.on_time, self.late, self._step, self._loss, self._resilient)

    def take_up(self, state: PolicyState) -> None:
        """Goes on where ``export`` left off."""
        self.on_time, self.late, self._loss, self._resilient = state.on_time, state.late, state.loss, state.resilient
        self._step = min(max(state.step, 0), len(_STEPS) - 1)
        self._set()
