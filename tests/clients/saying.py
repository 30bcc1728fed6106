"""The words and pictures of clients in tests: espeak-ng's voice, and pictures as large as a camera's."""

from __future__ import annotations

import asyncio
import base64
import wave
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from transceiver.speech.espeak import speak

__all__ = ["LONG", "PAUSE", "RATE_HZ", "picture", "spoken", "write_wav"]

RATE_HZ = 24000
PAUSE = bytes(RATE_HZ * 2)  # a second of silence: longer than any turn detector waits
# An answer that repeats it takes much longer to make than an interruption takes to come.
LONG = "The birch canoe slid on the smooth planks. " * 60


async def spoken(text: str) -> bytes:
    """``text`` as 24 kHz mono PCM16."""
    async with aclosing(speak(text, "en-us")) as speech:
        return b"".join([pcm async for pcm in speech])


def write_wav(path: Path, text: str) -> None:
    """Writes the same as a WAV file. Do not call it from within an event loop."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(asyncio.run(spoken(text)))


def picture() -> str:
    """A data URL of a JPEG of more than 200 KB."""
    noise = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.qmin, encoder.qmax = 640, 480, "yuvj420p", 2, 2
    encoder.time_base = Fraction(1, 25)
    (packet,) = encoder.encode(av.VideoFrame.from_ndarray(noise, "rgb24").reformat(format="yuvj420p"))
    jpeg = bytes(packet)
    assert len(jpeg) > 200_000
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
