"""Detection of turns: voice activity of 20 ms frames becomes beginnings and ends of speech. Pure.

``Detector`` is all that others know of it, and ``detector`` makes the one that is asked for: WebRTC's
(``rtc/vad/webrtc.py``), or that of ``rtc/vad/silero.py``, which is right more often in noise and costs twenty times as
much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from rtc.vad.webrtc import ONSET_MS, QUIET_RMS, DetectorState, WebrtcDetector

__all__ = ["ONSET_MS", "Detector", "DetectorState", "Vad", "detector", "load"]

Vad = Literal["webrtc", "silero"]


class Detector(Protocol):
    """The turns of one caller. ``voiced`` says whether the last frame was voice. ``silence_ms`` of silence end a turn,
    and may be set at any time, also while the silence lasts."""

    speaking: bool
    voiced: bool
    silence_ms: int

    @property
    def quiet_ms(self) -> int:
        """How much of that silence there has been, within a turn."""

    def push(self, frame: bytes) -> str:
        """``started``, ``stopped`` or nothing, for one frame of 20 ms."""

    def export(self) -> DetectorState:
        """The turn that it is in, as a value."""

    def take_up(self, state: DetectorState, frames: Sequence[bytes]) -> None:
        """Goes on where ``export`` left off; ``frames`` are the last ones. Raises ValueError where the state is of
        another detector."""


def load(vad: Vad) -> None:
    """Imports and reads what such a detector needs, so that the first call does not wait for it."""
    detector(24000, vad)


def detector(rate_hz: int, vad: Vad = "webrtc", *, silence_ms: int = 500, threshold: float = 0.5) -> Detector:
    """A detector of turns in mono PCM16 of ``rate_hz``. ``threshold`` is from 0 to 1: above 0.5 speech must be louder
    too, below it may be less certain."""
    if vad == "silero":
        from rtc.vad import silero  # its weights are for those who use it

        return silero.SileroDetector(rate_hz, silence_ms=silence_ms, threshold=threshold)
    sure = 3 if threshold >= 0.5 else 2 if threshold >= 0.25 else 1
    loud = QUIET_RMS * 2 ** max(0.0, 8 * (threshold - 0.5))
    return WebrtcDetector(rate_hz, silence_ms=silence_ms, aggressiveness=sure, quiet_rms=loud)
