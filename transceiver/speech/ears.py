"""Speech recognition for English without network: pocketsphinx, in a process of its own that ends with its standard
input.

Recognition takes a good part of a core for seconds and keeps Python's lock, so it has no place beside the process that
sends every caller's media. A question is 4 bytes of length (little endian) and 24 kHz mono PCM16; the answer is a line
of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np

from transceiver.speech.tasks import Failure

__all__ = ["Ears", "Recognizer"]

_LONGEST = 24000 * 2 * 30  # the last 30 s of a turn
_PATIENCE_S = 60.0
_RATE_HZ = 16000
# espeak-ng's voices: most phrases are above it, and other English sentences stayed below 0.38.
_ALIKE = 0.4
_ROOM_SAMPLES = 7200  # 0.3 s before and after
_ROOM_RMS = 30  # of 32768: -61 dBFS


class Ears:
    """One call's recogniser. Its process is started by ``start``, or by the first question."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()

    async def transcribe(self, pcm: bytes) -> str:
        """The words in 24 kHz mono PCM16, in lower case; empty where nothing was understood. Raises Failure."""
        pcm = pcm[-_LONGEST:]
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    return await self._ask(pcm)
            except (OSError, ValueError, TimeoutError) as error:
                await self._end()
                raise Failure(f"speech recognition failed: {type(error).__name__}") from None
            except asyncio.CancelledError:
                # Its answer would be taken for that of the next question.
                await self._end()
                raise

    async def close(self) -> None:
        await self._end()

    async def start(self) -> None:
        """Starts the process, which takes a second or two to load its model of English."""
        async with self._one_at_a_time:
            with contextlib.suppress(OSError):  # who asks is told
                await self._begin()

    async def _begin(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "transceiver.speech.ears", stdin=-1, stdout=-1
            )
        return self._process

    async def _ask(self, pcm: bytes) -> str:
        process = await self._begin()
        assert process.stdin
        assert process.stdout
        process.stdin.write(struct.pack("<I", len(pcm)) + pcm)
        await process.stdin.drain()
        return str(json.loads(await process.stdout.readline()))

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            assert process.stdin
            process.stdin.close()
            await process.wait()


class Recognizer:
    """Two decoders: one for the phrases that the brain knows, few and so heard well, and one for everything else."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        phrases = Path(__file__).with_name("phrases.gram")
        self._known = Decoder(samprate=_RATE_HZ, loglevel="FATAL", lm=None, jsgf=str(phrases))
        self._any = Decoder(samprate=_RATE_HZ, loglevel="FATAL")

    def text(self, pcm: bytes) -> str:
        """The words in 24 kHz mono PCM16. The phrases' decoder makes a phrase of anything, so it is believed where the
        other heard something that sounds alike."""
        narrow = _narrow(pcm)
        known, said = _heard(self._known, narrow), _heard(self._any, narrow)
        return known if _alikeness(self._phones(known), self._phones(said)) >= _ALIKE else said

    def anything(self, pcm: bytes) -> str:
        """The same by the general decoder alone."""
        return _heard(self._any, _narrow(pcm))

    def _phones(self, text: str) -> list[str]:
        return [phone for word in text.split() for phone in (self._any.lookup_word(word) or "").split()]


def _narrow(pcm: bytes) -> bytes:
    """The sound at 16 kHz, with the noise of a quiet room: a machine's voice has none around it, and the recogniser
    knows only rooms."""
    if len(pcm) < 2:
        return b""
    said = np.pad(np.frombuffer(pcm[: len(pcm) & ~1], np.int16).astype(np.float64), _ROOM_SAMPLES)
    said += np.random.default_rng(1).normal(0, _ROOM_RMS, len(said))
    frame = av.AudioFrame.from_ndarray(np.clip(said, -32768, 32767).astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate = 24000
    resampler = av.AudioResampler(format="s16", layout="mono", rate=_RATE_HZ)
    return b"".join(out.to_ndarray().tobytes() for out in (*resampler.resample(frame), *resampler.resample(None)))


def _heard(decoder: Any, pcm: bytes) -> str:
    if not pcm:
        return ""
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    best = decoder.hyp()
    return str(best.hypstr) if best else ""


def _alikeness(one: list[str], other: list[str]) -> float:
    """1 where both are the same, 0 where nothing is: one less their edit distance (Levenshtein), relative to the
    longer."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return 1 - row[-1] / max(len(one), len(other), 1)


def _serve() -> None:
    hearing = Recognizer()
    source = sys.stdin.buffer
    while len(head := source.read(4)) == 4:
        pcm = source.read(struct.unpack("<I", head)[0])
        print(json.dumps(hearing.text(pcm)), flush=True)


if __name__ == "__main__":
    _serve()
