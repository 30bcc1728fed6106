"""The keys that a caller presses while it talks, as telephone-events (RFC 4733). Pure."""

from __future__ import annotations

from typing import NamedTuple

from rtc.frame import frame_samples
from rtc.rtp.dtmf import DIGITS

__all__ = ["FRAME_TICKS", "Event", "Keypad"]

FRAME_TICKS = frame_samples(48000)
_BEFORE = 25  # frames of voice first, and between two presses
_BETWEEN = 5
_HELD = 5  # frames that a key is held, and packets that say so
_ENDS = 3  # more that say that it was (section 2.5.1.4)
_VOLUME = 10  # -dBm0


class Event(NamedTuple):
    """One packet: ``timestamp`` is that at which the key was pressed."""

    marker: bool
    timestamp: int
    payload: bytes


class Keypad:
    """The keys of one caller: ``keys``, digits of ``rtc.rtp.dtmf``, are pressed one after the other."""

    def __init__(self, keys: str) -> None:
        self._keys = list(keys.upper())
        self._frame = -_BEFORE
        self._began = 0

    def next(self, timestamp: int) -> Event | None:
        """The packet to send in place of the 20 ms of voice at ``timestamp``; None where the voice itself is due."""
        if not self._keys:
            return None
        frame = self._frame
        self._frame += 1
        if frame < 0:
            return None
        if frame == 0:
            self._began = timestamp
        ended = frame >= _HELD
        duration = FRAME_TICKS * min(frame + 1, _HELD)
        payload = bytes([DIGITS.index(self._keys[0]), ended << 7 | _VOLUME]) + duration.to_bytes(2, "big")
        if frame == _HELD + _ENDS - 1:
            del self._keys[0]
            self._frame = -_BETWEEN
        return Event(frame == 0, self._began, payload)
