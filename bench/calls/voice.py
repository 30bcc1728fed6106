"""The voice of the calls: sentences spoken by espeak-ng, as PCM to judge by and as 20 ms Opus packets to send.

The packets are encoded once, as a browser would encode a microphone: libopus in VoIP mode, mono, 32 kbit/s.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from caller.voice import generated
from rtc.frame import frame_samples

__all__ = ["FRAME_TICKS", "RATE_HZ", "Speech", "Voice", "encoded", "speech"]

RATE_HZ = 48000
FRAME_TICKS = frame_samples(RATE_HZ)
GAP_S = 0.3
BITRATE_BPS = 32000
# Of the Harvard sentences (IEEE Recommended Practice for Speech Quality Measurements, 1969), list 1.
SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "The hogs were fed chopped corn and garbage.",
)

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Speech:
    """48 kHz mono PCM16, a whole number of frames; ``sentences`` are (first sample, past the last) of each."""

    pcm: Samples
    sentences: tuple[tuple[int, int], ...]
    speaker: str


@dataclass(frozen=True)
class Voice:
    """Opus packets, 20 ms each, to be said over and over."""

    packets: tuple[bytes, ...]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps([b64encode(packet).decode() for packet in self.packets]))

    @staticmethod
    def load(path: Path) -> Voice:
        return Voice(tuple(b64decode(packet) for packet in json.loads(path.read_text())))


def speech() -> Speech:
    """The sentences with pauses between; without espeak-ng the made-up speaker of ``firsthop call``."""
    if shutil.which("espeak-ng") is None:
        pcm = np.frombuffer(generated(20.0).pcm(RATE_HZ), np.int16)
        return Speech(pcm, ((0, len(pcm)),), "a made-up speaker")
    gap = np.zeros(round(GAP_S * RATE_HZ), np.int16)
    parts: list[Samples] = []
    sentences = []
    at = 0
    for text in SENTENCES:
        spoken = _spoken(text)
        sentences.append((at, at + len(spoken)))
        parts += [spoken, gap]
        at += len(spoken) + len(gap)
    pcm = np.concatenate(parts)
    # A very small noise, as every microphone has: digital silence would be cheaper to encode than any call is.
    noise = np.random.default_rng(1).normal(0.0, 3.0, len(pcm))
    pcm = np.clip(pcm + noise, -32768, 32767).astype(np.int16)
    return Speech(np.pad(pcm, (0, -len(pcm) % FRAME_TICKS)), tuple(sentences), "espeak-ng")


def encoded(speech: Speech, *, expected_loss_percent: int = 0) -> Voice:
    """The speech as packets; where loss is expected each also carries the one before it (in-band FEC, RFC 6716
    section 2.1.7), as a browser's do when its receiver reports loss."""
    context: Any = av.CodecContext.create("libopus", "w")
    context.sample_rate = RATE_HZ
    context.format = "s16"
    context.layout = "mono"
    context.bit_rate = BITRATE_BPS
    fec = {"fec": "1", "packet_loss": str(expected_loss_percent)} if expected_loss_percent else {}
    context.options = {"application": "voip", "frame_duration": "20", **fec}
    packets = []
    for start in range(0, len(speech.pcm), FRAME_TICKS):
        frame = av.AudioFrame.from_ndarray(speech.pcm[None, start : start + FRAME_TICKS], format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        frame.pts = start
        packets += [bytes(packet) for packet in context.encode(frame)]
    return Voice(tuple(packets))


def _spoken(text: str) -> Samples:
    command = ["espeak-ng", "-v", "en", "-s", "160", "--stdout", text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    with av.open(io.BytesIO(wav), mode="r") as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.int16)
