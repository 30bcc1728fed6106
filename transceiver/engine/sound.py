"""Sound as the models want it: samples at 16 kHz, and their log-mel spectrogram. Pure.

The spectrogram is Whisper's (``whisper.audio.log_mel_spectrogram``): frames of 25 ms, one each 10 ms, 80 mels on
Slaney's scale. Smart Turn has the same one.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["LEAST_HZ", "MOST_HZ", "RATE_HZ", "Samples", "log_mel", "rms", "samples"]

Samples = NDArray[np.float32]

RATE_HZ = 16000
LEAST_HZ, MOST_HZ = 8000, 48000
_FRAME, _HOP, _MELS = 400, 160, 80


def samples(pcm: bytes, rate: int) -> Samples:
    """Mono PCM16, little endian, at ``rate`` as samples at 16 kHz, -1 to 1; half a sample at the end is left out.
    Raises ValueError for a rate that is not from LEAST_HZ to MOST_HZ."""
    if not LEAST_HZ <= rate <= MOST_HZ:
        raise ValueError(f"sound at {rate} Hz is not heard, only from {LEAST_HZ} to {MOST_HZ}")
    heard: Samples = np.frombuffer(pcm[: len(pcm) & ~1], "<i2").astype(np.float32) / np.float32(32768)
    size = len(heard) * RATE_HZ // rate
    if rate == RATE_HZ or not size:
        return heard[:size]
    # The whole utterance is here, so its spectrum is cut or filled up.
    spectrum = np.fft.rfft(heard)[: size // 2 + 1]
    narrow = np.fft.irfft(spectrum, size) * (size / len(heard))
    return narrow.astype(np.float32)


def rms(sound: Samples) -> float:
    """The level: 1 is a square wave at full scale, and there is none of nothing."""
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) if len(sound) else 0.0


def log_mel(sound: Samples) -> NDArray[np.float32]:
    """The spectrogram, of shape (80, samples / 160), of 400 samples or more."""
    padded = np.pad(sound, _FRAME // 2, mode="reflect")
    frames = sliding_window_view(padded, _FRAME)[::_HOP][: len(sound) // _HOP]
    power = np.square(np.abs(np.fft.rfft(frames * _window(), axis=1)))
    logs = np.log10(np.maximum(_filters() @ power.T.astype(np.float32), 1e-10))
    logs = np.maximum(logs, logs.max() - 8)
    return np.ascontiguousarray((logs + 4) / 4, dtype=np.float32)


@functools.cache
def _window() -> NDArray[np.float32]:
    return np.hanning(_FRAME + 1)[:-1].astype(np.float32)


@functools.cache
def _filters() -> NDArray[np.float32]:
    """Triangles on Slaney's scale (linear up to 1 kHz, logarithmic beyond), each with the same area."""
    hertz = _hertz(np.linspace(0, _mel(RATE_HZ / 2), _MELS + 2))
    bins = np.linspace(0, RATE_HZ / 2, _FRAME // 2 + 1)
    slopes = hertz[:, None] - bins
    width = np.diff(hertz)[:, None]
    triangles = np.maximum(0, np.minimum(-slopes[:-2] / width[:-1], slopes[2:] / width[1:]))
    return (triangles * (2 / (hertz[2:] - hertz[:-2]))[:, None]).astype(np.float32)


_KNEE_HZ, _KNEE_MEL, _STEP = 1000.0, 15.0, np.log(6.4) / 27


def _mel(hertz: float) -> float:
    return 3 * hertz / 200 if hertz < _KNEE_HZ else _KNEE_MEL + float(np.log(hertz / _KNEE_HZ)) / _STEP


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < _KNEE_MEL, 200 * mel / 3, _KNEE_HZ * np.exp(_STEP * (mel - _KNEE_MEL)))
