"""A resampler of mono PCM16 from any rate to any other, by libswresample: the whole band, about a millisecond late.

``rtc.codecs.resample`` is for G.711, whose band is that of the telephone.
"""

from __future__ import annotations

import av
import numpy as np
from av.audio.resampler import AudioResampler

__all__ = ["Resampler"]


class Resampler:
    """A resampler of one stream, in pieces of any length. Where both rates are one, what comes goes."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._from_hz = from_hz
        self._filter = AudioResampler(format="s16", layout="mono", rate=to_hz) if from_hz != to_hz else None
        self._fed = False

    def push(self, pcm: bytes) -> bytes:
        """The samples that are ready with these."""
        if self._filter is None or not pcm:
            return pcm
        self._fed = True
        frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, np.int16)[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = self._from_hz
        return self._joined(frame)

    def rest(self) -> bytes:
        """The last samples, which wait for others; nothing may follow."""
        return self._joined(None) if self._filter is not None and self._fed else b""

    def whole(self, pcm: bytes) -> bytes:
        """The samples of a whole piece; nothing may follow."""
        return self.push(pcm) + self.rest()

    def _joined(self, frame: av.AudioFrame | None) -> bytes:
        assert self._filter is not None
        return b"".join(part.to_ndarray().tobytes() for part in self._filter.resample(frame))
