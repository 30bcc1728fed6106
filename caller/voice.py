"""A voice as 20 ms Opus frames, encoded once for all the calls of a process.

A very small noise lies over everything, so that no two frames have the same payload: an agent that passes Opus
straight back then tells by the payload alone which frame came home, and when it left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from rtc.codecs.opus import Decoder, Encoder
from rtc.frame import FRAME_MS, FRAME_S, frame_samples

__all__ = ["FRAME_SAMPLES", "RATE_HZ", "Voice", "VoiceError", "generated", "recorded"]

RATE_HZ = 48000
FRAME_SAMPLES = frame_samples(RATE_HZ)
PAUSE_S = 1.5
_SPEAK_S = 2.0
_NOISE_LSB = 1.5
_PEAK_LSB = 12000.0
# A gap of half a second ends a turn: what turn detectors wait for by default.
_TURN_GAP_FRAMES = 25

Samples = npt.NDArray[np.float64]
_Formants = tuple[tuple[float, float, float], ...]

# (centre in Hz, bandwidth in Hz, gain) of the first three formants of five vowels (Peterson and Barney, 1952).
_VOWELS: tuple[_Formants, ...] = (
    ((730, 80, 1.0), (1090, 90, 0.60), (2440, 140, 0.25)),
    ((530, 70, 1.0), (1840, 100, 0.45), (2480, 140, 0.25)),
    ((300, 60, 1.0), (2290, 110, 0.35), (3010, 160, 0.20)),
    ((570, 70, 1.0), (840, 80, 0.65), (2410, 140, 0.20)),
    ((400, 65, 1.0), (1020, 85, 0.50), (2240, 140, 0.20)),
)


class VoiceError(ValueError):
    """A recording that cannot be used; one line that names the file and what is wrong with it."""


@dataclass(frozen=True)
class Voice:
    """A loop of Opus frames, 20 ms each, mono, RTP clock 48,000 Hz.

    ``speech`` says of each frame whether somebody speaks in it, ``turn_ends`` holds the frames after which nobody
    does for at least half a second, ``turn_starts`` those before which nobody did, ``frame_of`` finds a frame by its
    payload.
    """

    frames: tuple[bytes, ...]
    speech: tuple[bool, ...]
    turn_ends: frozenset[int]
    turn_starts: frozenset[int]
    frame_of: dict[bytes, int]

    @property
    def seconds(self) -> float:
        """The length of the loop."""
        return len(self.frames) * FRAME_S

    def pcm(self, rate_hz: int) -> bytes:
        """The sound of one loop as a listener hears it: 16 bit samples, 8000, 12000, 16000, 24000 or 48000 a second."""
        decoder = Decoder(rate_hz)
        return b"".join(decoder.decode(frame) for frame in self.frames)


def recorded(path: Path, seed: int = 1) -> Voice:
    """The voice in an audio file of any format that FFmpeg reads, with a pause after it so that the other side gets its
    turn. Raises VoiceError."""
    try:
        chunks = list(_decoded(path))
    except (OSError, av.FFmpegError) as e:
        raise VoiceError(f"{path}: not a readable audio file: {e.strerror or e}") from None
    samples = np.concatenate([*chunks, np.zeros(0)])
    if len(samples) < FRAME_SAMPLES:
        raise VoiceError(f"{path}: no audio in it, or less than {FRAME_MS} ms")
    return _encoded(np.concatenate([samples, np.zeros(round(PAUSE_S * RATE_HZ))]), seed)


def generated(seconds: float = 21.0, seed: int = 1) -> Voice:
    """The voice of a made-up speaker: two seconds of syllables, a second and a half of pause, again until
    ``seconds``."""
    rng = np.random.default_rng(seed)
    samples = np.zeros(max(round(seconds * RATE_HZ), FRAME_SAMPLES))
    start, turn = 0, round((_SPEAK_S + PAUSE_S) * RATE_HZ)
    while start < len(samples):
        spoken = _utterance(rng, _SPEAK_S)[: len(samples) - start]
        samples[start : start + len(spoken)] = spoken
        start += turn
    return _encoded(samples, seed)


def _decoded(path: Path) -> Iterator[Samples]:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise VoiceError(f"{path}: there is no audio stream in it")
        for frame in container.decode(audio=0):
            for out in resampler.resample(frame):
                yield out.to_ndarray()[0].astype(np.float64)
        for out in resampler.resample(None):
            yield out.to_ndarray()[0].astype(np.float64)


def _encoded(samples: Samples, seed: int) -> Voice:
    """The frames of ``samples`` (full scale 32,768); the last frame is filled up with silence."""
    frames = np.pad(samples, (0, -len(samples) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)
    loudness = np.sqrt((frames**2).mean(axis=1))
    # 26 dB under the loud frames: far over the background of a usable recording, far under any vowel.
    speech = loudness > max(0.05 * float(np.quantile(loudness, 0.95)), 10 * _NOISE_LSB)
    noise = np.random.default_rng(seed).normal(0.0, _NOISE_LSB, frames.shape)
    pcm = np.clip(np.rint(frames + noise), -32768, 32767).astype("<i2")
    encoder = Encoder(RATE_HZ)
    payloads = tuple(encoder.encode(frame.tobytes()) for frame in pcm)
    return Voice(
        payloads,
        tuple(speech.tolist()),
        *_turns(speech),
        {payload: i for i, payload in enumerate(payloads)},
    )


def _turns(speech: npt.NDArray[np.bool_]) -> tuple[frozenset[int], frozenset[int]]:
    """The frames with which turns end, and those with which they begin."""
    spoken = np.flatnonzero(speech)
    if not len(spoken):
        return frozenset(), frozenset()
    # The loop's first word follows its last.
    following = np.append(spoken[1:], spoken[0] + len(speech))
    last = following - spoken > _TURN_GAP_FRAMES
    return frozenset(spoken[last].tolist()), frozenset((following[last] % len(speech)).tolist())


def _utterance(rng: np.random.Generator, seconds: float) -> Samples:
    """Words of two to four syllables with short gaps, the pitch falling towards the end as in a statement."""
    total = round(seconds * RATE_HZ)
    out = np.zeros(total)
    at = 0
    while total - at > 0.08 * RATE_HZ:
        for _ in range(rng.integers(2, 5)):
            length = min(round(rng.uniform(0.14, 0.24) * RATE_HZ), total - at)
            if length < 0.08 * RATE_HZ:
                break
            pitch_hz = 150 - 40 * at / total + rng.uniform(-12, 12)
            out[at : at + length] = _syllable(rng, length, pitch_hz)
            at += length
        at += round(rng.uniform(0.03, 0.06) * RATE_HZ)
    return out


def _syllable(rng: np.random.Generator, length: int, pitch_hz: float) -> Samples:
    """One vowel: a glottal pulse train through resonances (source and filter, Fant 1960), under an envelope."""
    glide = pitch_hz * np.linspace(1 + rng.uniform(-0.08, 0.08), 1.0, length)
    glide *= 1 + 0.01 * np.sin(2 * np.pi * 5 * np.arange(length) / RATE_HZ)
    pulses = np.flatnonzero(np.diff(np.floor(np.cumsum(glide) / RATE_HZ), prepend=0.0))

    t = np.arange(round(0.03 * RATE_HZ)) / RATE_HZ
    response = np.zeros(len(t))
    for centre_hz, bandwidth_hz, gain in _VOWELS[rng.integers(len(_VOWELS))]:
        response += gain * np.exp(-np.pi * bandwidth_hz * t) * np.sin(2 * np.pi * centre_hz * t)
    voiced = np.zeros(length + len(response))
    for at, strength in zip(pulses.tolist(), rng.uniform(0.9, 1.1, len(pulses)), strict=True):
        voiced[at : at + len(response)] += strength * response
    voiced = voiced[:length]

    rise = min(round(0.02 * RATE_HZ), length // 3)
    envelope = np.ones(length)
    envelope[:rise] = np.sin(np.linspace(0, np.pi / 2, rise)) ** 2
    envelope[-rise:] = envelope[:rise][::-1]
    peak = float(np.abs(voiced).max()) or 1.0
    scaled: Samples = voiced * envelope * (_PEAK_LSB / peak)
    return scaled
