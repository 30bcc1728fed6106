"""Tones, and what is heard of them in a recording."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float64]


def tone(hz: float, frames: int, rate_hz: int = 24000, loud: float = 8000) -> list[bytes]:
    """So many frames of 20 ms of a tone."""
    t = np.arange(frames * rate_hz // 50) / rate_hz
    pcm = (loud * np.sin(2 * np.pi * hz * t)).astype(np.int16)
    return [frame.tobytes() for frame in pcm.reshape(frames, -1)]


def played(path: Path) -> tuple[Sound, Sound]:
    """The left and the right channel, at 48,000 Hz, as any player has them."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16p", layout="stereo", rate=48000)
        parts = [out.to_ndarray() for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    both = np.concatenate(parts, axis=1).astype(np.float64)
    return both[0], both[1]


def power(sound: Sound, hz: float) -> float:
    """The power of that tone, as a root mean square."""
    t = np.arange(len(sound)) / 48000
    return float(abs(np.mean(sound * np.exp(-2j * np.pi * hz * t))) * 2**0.5)


def rms(sound: Sound) -> float:
    return float(np.sqrt(np.mean(sound**2)))
