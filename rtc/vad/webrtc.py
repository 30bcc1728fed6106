"""A detector of turns by WebRTC's voice activity detector (``webrtcvad``). Pure: 20 ms frames in, edges out.

``webrtcvad`` looks at 8 kHz whatever it is given, so the samples of a higher rate are averaged into those first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import webrtcvad
from msgspec import Struct

from rtc.frame import FRAME_MS

__all__ = ["ONSET_MS", "QUIET_RMS", "DetectorState", "WebrtcDetector"]

QUIET_RMS = 64.0  # of 32768: -54 dBFS
_ONSET = (3, 4)  # this many voiced frames out of the last so many begin speech
ONSET_MS = _ONSET[1] * FRAME_MS  # as far back speech may reach when it is noticed


class DetectorState(Struct, frozen=True, array_like=True):
    """A detector of turns as a value. ``recent`` says of the last frames whether they were voice; ``more`` is of one
    kind of detector alone."""

    speaking: bool
    voiced: bool
    silence_ms: int
    recent: list[bool]
    silent_frames: int
    more: list[float]


class WebrtcDetector:
    """The turns of one caller, from mono PCM16 of 8, 16, 24 or 48 kHz. ``voiced`` says whether the last frame was
    voice."""

    def __init__(
        self,
        rate_hz: int = 24000,
        *,
        silence_ms: int = 500,
        aggressiveness: int = 3,
        quiet_rms: float = QUIET_RMS,
    ) -> None:
        self.silence_ms = silence_ms
        self._quiet = quiet_rms**2
        self._vad = webrtcvad.Vad(aggressiveness)
        self._recent: deque[bool] = deque(maxlen=_ONSET[1])
        self._silent_frames = 0
        self._fold = np.ones(rate_hz // 8000, np.float32)
        self.speaking = False
        self.voiced = False

    @property
    def quiet_ms(self) -> int:
        """How much silence there has been within the turn."""
        return self._silent_frames * FRAME_MS

    def push(self, frame: bytes) -> str:
        """``started``, ``stopped`` or nothing, for one frame of 20 ms."""
        # The mean of each few samples, by a product: NumPy's own mean takes five times as long.
        narrow = np.frombuffer(frame, np.int16).astype(np.float32).reshape(-1, len(self._fold)) @ self._fold
        narrow /= len(self._fold)
        # The detector holds on for some frames after any loud one: a click must not become speech by that, nor the
        # silence after speech be longer than it is.
        audible = bool(narrow @ narrow > len(narrow) * self._quiet)
        voiced = self._vad.is_speech(narrow.astype(np.int16).tobytes(), 8000) and audible
        self.voiced = voiced
        self._recent.append(voiced)
        if not self.speaking:
            if sum(self._recent) < _ONSET[0]:
                return ""
            self.speaking = True
            self._silent_frames = 0
            return "started"
        self._silent_frames = 0 if voiced else self._silent_frames + 1
        if self._silent_frames * FRAME_MS < self.silence_ms:
            return ""
        self.speaking = False
        self._recent.clear()
        return "stopped"

    # --- as a value

    def export(self) -> DetectorState:
        """All of it but for what ``webrtcvad`` has learnt of the noise."""
        return DetectorState(self.speaking, self.voiced, self.silence_ms, list(self._recent), self._silent_frames, [])

    def take_up(self, state: DetectorState, frames: Sequence[bytes]) -> None:
        """Goes on where ``export`` left off; ``frames`` are the last ones, to learn the noise by."""
        for frame in frames:
            self.push(frame)
        self.speaking, self.voiced, self.silence_ms = state.speaking, state.voiced, state.silence_ms
        self._recent.clear()
        self._recent.extend(state.recent)
        self._silent_frames = state.silent_frames
