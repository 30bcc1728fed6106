"""G.711, both laws (ITU-T G.711, RFC 3551 section 4.5.14): 8 kHz, one byte a sample, for callers without Opus.

Encoding takes the nearest level. A lost frame is filled with the last pitch period over and over, fading
(after G.711 Appendix I).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rtc.codecs.encoder_policy import Settings
from rtc.codecs.resample import Down, Samples, Up
from rtc.frame import frame_samples

__all__ = ["A_LAW", "MU_LAW", "Decoder", "Encoder", "Law"]

_RATE_HZ = 8000
_KEPT = 240
_LAGS = (40, 120)  # 200 to 67 Hz
_FADE = 40  # samples over which what is invented gives way to what came
_STEADY, _GONE = 80, 480  # samples for which it is as loud as before, and after which it is silent


Linear = npt.NDArray[np.int16]


class Law:
    """A companding law, given by the ``levels`` of its 256 codes."""

    def __init__(self, name: str, levels: Linear) -> None:
        self.name = name
        self.levels = levels.astype(np.float32)
        order = np.argsort(levels, kind="stable")
        between = (levels[order][1:].astype(np.float32) + levels[order][:-1]) / 2
        samples = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
        # By the bits of the sample.
        self.codes = order[np.searchsorted(between, samples.astype(np.float32))].astype(np.uint8)
        self.silence = bytes([int(self.codes[0])]) * frame_samples(_RATE_HZ)


def _levels_of_mu_law() -> Linear:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    level = (((code & 15) << 3) + 132 << (code >> 4 & 7)) - 132
    levels: Linear = np.where(code & 128, -level, level).astype(np.int16)
    return levels


def _levels_of_a_law() -> Linear:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    segment = code >> 4 & 7
    level = ((code & 15) << 4) + np.where(segment, 0x108, 8) << np.maximum(segment - 1, 0)
    levels: Linear = np.where(code & 128, level, -level).astype(np.int16)
    return levels


MU_LAW = Law("PCMU", _levels_of_mu_law())
A_LAW = Law("PCMA", _levels_of_a_law())


class Encoder:
    """An encoder from mono PCM16 of ``rate_hz`` (8000 or a multiple) to one byte for each sample at 8 kHz."""

    def __init__(self, law: Law, rate_hz: int) -> None:
        self._law = law
        self._down = Down(rate_hz // _RATE_HZ) if rate_hz != _RATE_HZ else None

    def tuned(self, settings: Settings) -> Encoder:
        """Returns itself: G.711 has nothing to tune."""
        return self

    def encode(self, pcm: bytes) -> bytes:
        """One payload."""
        samples = np.frombuffer(pcm, np.int16)
        if self._down is not None:
            samples = _rounded(self._down.push(samples.astype(np.float32)))
        return self._law.codes[samples.view(np.uint16)].tobytes()


class Decoder:
    """A decoder from payloads to mono PCM16 of ``rate_hz``; no payload is malformed."""

    def __init__(self, law: Law, rate_hz: int) -> None:
        self._levels = law.levels
        self._factor = rate_hz // _RATE_HZ
        self._up = Up(self._factor) if self._factor > 1 else None
        self._past = np.zeros(_KEPT, np.float32)
        self._period = self._past[:1]
        self._invented = 0  # samples in a row

    def decode(self, packet: bytes) -> bytes:
        """The samples of ``packet``."""
        if not packet:
            return b""
        samples = self._levels[np.frombuffer(packet, np.uint8)]
        if self._invented:
            count = min(_FADE, len(samples))
            into = np.linspace(0, 1, count, dtype=np.float32)
            samples[:count] = samples[:count] * into + self._invent(count) * (1 - into)
            self._invented = 0
        return self._out(samples)

    def recover(self, packet: bytes, samples: int) -> bytes:
        """Returns nothing: G.711 carries no copies."""
        return self.conceal(samples)

    def conceal(self, samples: int) -> bytes:
        """Samples that stand in for ``samples`` lost ones."""
        return self._out(self._invent(samples // self._factor))

    def _invent(self, count: int) -> Samples:
        if not self._invented:
            self._period = self._past[-_pitch(self._past) :]
        at = self._invented + np.arange(count)
        self._invented += count
        gain = np.clip((_GONE - at) / (_GONE - _STEADY), 0, 1).astype(np.float32)
        out: Samples = self._period[at % len(self._period)] * gain
        return out

    def _out(self, samples: Samples) -> bytes:
        self._past = np.concatenate((self._past, samples))[-_KEPT:]
        return _rounded(self._up.push(samples) if self._up is not None else samples).tobytes()


def _pitch(past: Samples) -> int:
    """The lag at which the last 10 ms resemble most what was before them."""
    shortest, longest = _LAGS
    recent = past[-80:]
    before = np.lib.stride_tricks.sliding_window_view(past[-80 - longest : -shortest], 80)
    likeness = before @ recent / np.sqrt(np.maximum((before * before).sum(axis=1), 1.0))
    return longest - int(likeness.argmax())


def _rounded(samples: Samples) -> Linear:
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)
