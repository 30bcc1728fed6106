"""The audio for the detectors: sentences by espeak-ng's voices with pauses between, alone and under generated noise.

Speech is labelled before noise is added: 50 ms are speech where they are less than 30 dB below a sentence's loudness.
"""

from __future__ import annotations

import io
import subprocess
import wave
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.calls.voice import SENTENCES

__all__ = ["LABEL_S", "NOISES", "RATE_HZ", "Speech", "noise_of", "noisy", "speech"]

RATE_HZ = 16000
LABEL_S = 0.05
NOISES = ("clean", "white", "pink", "babble", "typing", "music")
SNR_DB = 10.0
VOICES = ("en", "en-us+f3", "en-gb+m3", "en-us+m7", "en-gb+f2", "en+croak")
_SPEECH_RMS = 2000.0  # of 32768: -24 dBFS
_FLOOR_RMS = 3.0  # a microphone's own
_LABEL_DB = -30.0

Samples = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Speech:
    """Mono at 16 kHz in units of PCM16; ``sentences`` are (first sample, past the last); there is one of
    ``labels`` for each 50 ms."""

    pcm: Samples
    sentences: tuple[tuple[int, int], ...]
    labels: npt.NDArray[np.bool_]


def speech(rounds: int, seed: int = 1) -> Speech:
    """Each sentence ``rounds`` times, each time by another voice, 0.8 to 2.5 s apart."""
    random = np.random.default_rng(seed)
    parts: list[Samples] = [np.zeros(RATE_HZ * 2)]
    at = len(parts[0])
    sentences = []
    label = round(LABEL_S * RATE_HZ)
    for i in range(rounds * len(SENTENCES)):
        said = _loud(
            _spoken(SENTENCES[i % len(SENTENCES)], VOICES[(i + i // len(SENTENCES)) % len(VOICES)], 140 + 7 * (i % 7))
        )
        sentences.append((at, at + len(said)))
        pause = np.zeros(round(random.uniform(0.8, 2.5) * RATE_HZ))
        parts += [said, pause]
        at += len(said) + len(pause)
    pcm = np.concatenate(parts)
    pcm = pcm[: len(pcm) - len(pcm) % label]
    rms = np.sqrt((pcm.reshape(-1, label) ** 2).mean(axis=1))
    return Speech(pcm, tuple(sentences), rms > _SPEECH_RMS * 10 ** (_LABEL_DB / 20))


def noisy(spoken: Speech, noise: str, seed: int = 2) -> bytes:
    """PCM16 of the speech under ``noise`` at 10 dB SNR, measured over the sentences."""
    count = len(spoken.pcm)
    random = np.random.default_rng(seed)
    if noise == "clean":
        added = random.normal(0.0, 1.0, count) * _FLOOR_RMS
    else:
        added = noise_of(noise, count, random)
        added *= _SPEECH_RMS / 10 ** (SNR_DB / 20) / np.sqrt((added**2).mean())
    return bytes(np.clip(spoken.pcm + added, -32768, 32767).astype("<i2").tobytes())


def noise_of(noise: str, count: int, random: np.random.Generator) -> Samples:
    """So many samples of a noise, however loud."""
    white = random.normal(0.0, 1.0, count)
    if noise == "pink":
        shape = 1 / np.sqrt(np.maximum(np.fft.rfftfreq(count, 1 / RATE_HZ), 20.0))
        return np.asarray(np.fft.irfft(np.fft.rfft(white) * shape, count))
    made = {"babble": _babble, "typing": _typing, "music": _music}.get(noise)
    return white if made is None else made(count, random)


def _babble(count: int, random: np.random.Generator) -> Samples:
    """Eight speakers at once, none of whom pauses."""
    total = np.zeros(count)
    for i in range(8):
        order = random.permutation(len(SENTENCES))
        said = np.concatenate([_loud(_spoken(SENTENCES[k], VOICES[(i + k) % len(VOICES)], 150)) for k in order])
        total += np.resize(np.roll(said, int(random.integers(len(said)))), count)
    return total


def _typing(count: int, random: np.random.Generator) -> Samples:
    """Six keys a second: bursts of 8 ms that ring at 1 to 4 kHz."""
    total = np.zeros(count)
    decay = np.exp(-np.arange(480) / 60)
    for at in random.integers(0, count - 480, round(6 * count / RATE_HZ)):
        ring = np.sin(2 * np.pi * random.uniform(1000, 4000) * np.arange(480) / RATE_HZ)
        total[at : at + 480] += (ring + random.normal(0, 1, 480)) * decay
    return total


def _music(count: int, random: np.random.Generator) -> Samples:
    """Chords of three notes with four harmonics each, half a second long."""
    total = np.zeros(count)
    length = RATE_HZ // 2
    time = np.arange(length) / RATE_HZ
    for at in range(0, count - length, length):
        for note in random.choice(24, 3, replace=False):
            hz = 130.8 * 2 ** (note / 12)
            total[at : at + length] += sum(np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 5)) * np.exp(
                -3 * time
            )
    return total


def _loud(pcm: Samples) -> Samples:
    """The sentence without silence at its ends, and as loud as all are."""
    loud = np.flatnonzero(np.abs(pcm) > np.abs(pcm).max() * 0.02)
    pcm = pcm[loud[0] : loud[-1] + 1]
    loud_enough: Samples = pcm * (_SPEECH_RMS / np.sqrt((pcm**2).mean()))
    return loud_enough


def _spoken(text: str, voice: str, words_per_minute: int) -> Samples:
    command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "--stdout", text]
    said = subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603
    with wave.open(io.BytesIO(said)) as wav:
        rate, pcm = wav.getframerate(), np.frombuffer(wav.readframes(1 << 24), "<i2").astype(np.float64)
    at = np.arange(int(len(pcm) * RATE_HZ / rate)) * rate / RATE_HZ
    resampled: Samples = np.interp(at, np.arange(len(pcm)), pcm)
    return resampled
