"""The recording of a call: an Ogg Opus file (RFC 7845) of two channels, the caller left and the agent right.

Ogg is written page by page, and pages stand for themselves: a file whose end was never written can be played up to
there. WAV would need no encoder, but fourteen times the room, and lengths in its head that are right only at the end.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av
import numpy as np

from rtc.frame import FRAMES_PER_S, frame_bytes
from transceiver.records.sink import create

__all__ = ["Recording"]

_BITRATE = 64000  # both voices together; less, and each would be heard in the other's channel
_PAGE_US = 200_000
# Low delay without effort: 1.7 ms of CPU for a second of both voices, where Opus's voice mode takes 6.5 at the least.
_ENCODER = {"application": "lowdelay", "compression_level": "0"}


class Recording:
    """A ``Sink`` of (index, heard, said): the 20 ms of either side that were heard and sent in the tick ``index`` of
    the call's clock, mono PCM16 of ``rate_hz``, or nothing where there was silence. Ticks that are missing are
    silence."""

    what = "frame"

    def __init__(self, path: Path, rate_hz: int) -> None:
        self.path = path
        self._rate_hz = rate_hz
        self._silence = bytes(frame_bytes(rate_hz))
        self._next = 0  # index
        self._samples = 0
        self._file: _File | None = None
        self._container: Any = None
        self._stream: Any = None

    def write(self, pieces: list[tuple[int, bytes, bytes]]) -> None:
        """Appends pieces. Raises OSError, or what FFmpeg makes of it."""
        if self._container is None:
            self._open()
        left, right = bytearray(), bytearray()
        for index, heard, said in pieces:
            while self._next < index:
                left += self._silence
                right += self._silence
                self._next += 1
                if len(left) >= FRAMES_PER_S * len(self._silence):
                    self._encode(left, right)
            left += heard or self._silence
            right += said or self._silence
            self._next = index + 1
        self._encode(left, right)

    def close(self) -> None:
        """Ends the file. Raises as ``write`` does."""
        try:
            if self._container is not None:
                self._mux(None)
                self._container.close()
        finally:
            self._container = self._stream = None
            if self._file is not None:
                self._file.shut()

    def _open(self) -> None:
        self._file = _File(create(self.path))
        self._container = av.open(self._file, "w", format="ogg", options={"page_duration": str(_PAGE_US)})
        self._stream = self._container.add_stream("libopus", self._rate_hz, layout="stereo", options=_ENCODER)
        self._stream.bit_rate = _BITRATE

    def _encode(self, left: bytearray, right: bytearray) -> None:
        """Encodes both channels, which have one length, and empties them."""
        both = np.empty((1, len(left)), np.int16)
        both[0, 0::2] = np.frombuffer(bytes(left), np.int16)
        both[0, 1::2] = np.frombuffer(bytes(right), np.int16)
        left.clear()
        right.clear()
        frame = av.AudioFrame.from_ndarray(both, "s16", "stereo")
        frame.sample_rate = self._rate_hz
        frame.pts = self._samples
        self._samples += both.size // 2
        self._mux(frame)

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


class _File:
    """The file object that PyAV writes to. It cannot seek: there is nothing to go back for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        return len(data)

    def shut(self) -> None:
        os.close(self._descriptor)
