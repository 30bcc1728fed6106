"""Short-time objective intelligibility, 0 to 1 (Taal, Hendriks, Heusdens and Jensen, 2011)."""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt

__all__ = ["aligned", "stoi"]

Signal = npt.NDArray[np.float64]

_RATE_HZ, _FRAME, _HOP, _FFT, _SEGMENT = 10000, 256, 128, 512, 30
_RANGE_DB, _CLIP_DB = 40.0, -15.0


def aligned(clean: Signal, heard: Signal) -> tuple[Signal, Signal, int]:
    """Both in one length, with ``heard`` moved to where it is most like ``clean``; and by how many samples it was
    moved."""
    size = 1 << (len(clean) + len(heard)).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(clean, size)))
    late = int(likeness[: size // 2].argmax())
    heard = heard[late:]
    count = min(len(clean), len(heard))
    return clean[:count], heard[:count], late


def stoi(clean: Signal, heard: Signal, rate_hz: int) -> float:
    """The intelligibility of ``clean`` in ``heard``, which are aligned and of one length."""
    x, y = (_resampled(signal, rate_hz) for signal in (clean, heard))
    window = np.hanning(_FRAME + 2)[1:-1]
    frames_x, frames_y = (np.lib.stride_tricks.sliding_window_view(s, _FRAME)[::_HOP] * window for s in (x, y))
    energy = 20 * np.log10(np.linalg.norm(frames_x, axis=1) + 1e-9)
    spoken = energy > energy.max() - _RANGE_DB
    bands = _bands()
    tf_x, tf_y = (np.sqrt(bands @ (np.abs(np.fft.rfft(f[spoken], _FFT)) ** 2).T) for f in (frames_x, frames_y))
    scores = []
    for end in range(_SEGMENT, tf_x.shape[1] + 1):
        a, b = tf_x[:, end - _SEGMENT : end], tf_y[:, end - _SEGMENT : end]
        b = b * np.linalg.norm(a, axis=1, keepdims=True) / (np.linalg.norm(b, axis=1, keepdims=True) + 1e-9)
        b = np.minimum(b, a * (1 + 10 ** (-_CLIP_DB / 20)))
        a = a - a.mean(axis=1, keepdims=True)
        b = b - b.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1) + 1e-9
        scores.append(float(((a * b).sum(axis=1) / norm).mean()))
    return float(np.mean(scores))


def _resampled(signal: Signal, rate_hz: int) -> Signal:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=_RATE_HZ)
    frame = av.AudioFrame.from_ndarray(signal.astype(np.int16).reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = rate_hz
    out = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray().reshape(-1) for part in out]).astype(np.float64)


def _bands() -> Signal:
    """15 third octaves from 150 Hz on, as sums of FFT bins."""
    bins = np.linspace(0, _RATE_HZ / 2, _FFT // 2 + 1)
    centres = 150 * 2 ** (np.arange(15) / 3)
    low = np.abs(bins[None] - (centres * 2 ** (-1 / 6))[:, None]).argmin(axis=1)
    high = np.abs(bins[None] - (centres * 2 ** (1 / 6))[:, None]).argmin(axis=1)
    out = np.zeros((15, len(bins)))
    for row, a, b in zip(out, low, high, strict=True):
        row[a:b] = 1
    return out
