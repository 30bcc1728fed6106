"""English speech to text without network: pocketsphinx, in a process of its own, which ends with its standard input.

Recognition takes a good part of a core for seconds and keeps Python's lock: beside the process that sends every
caller's media it has no place. Asked by 4 bytes of length (little endian) and 24 kHz mono PCM16; the answer is a line
of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys

import numpy as np

from transceiver.speech.tasks import Failure

__all__ = ["Ears"]

_LONGEST = 24000 * 2 * 30  # the last 30 s of a turn
_PATIENCE_S = 60.0


class Ears:
    """One call's recogniser. Its process is started by the first question."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()

    async def transcribe(self, pcm: bytes) -> str:
        """What 24 kHz mono PCM16 says, in lower case; nothing where nothing was understood. Raises Failure."""
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

    async def _ask(self, pcm: bytes) -> str:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "transceiver.speech.ears", stdin=-1, stdout=-1
            )
        process = self._process
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


def _serve() -> None:
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=16000, loglevel="FATAL")
    source, answers = sys.stdin.buffer, sys.stdout
    while len(head := source.read(4)) == 4:
        pcm = source.read(struct.unpack("<I", head)[0])
        samples = np.repeat(np.frombuffer(pcm[: len(pcm) & ~1], np.int16).astype(np.float32), 2)
        narrow = samples[: len(samples) // 3 * 3].reshape(-1, 3).mean(axis=1).astype(np.int16)
        text = ""
        if len(narrow):
            decoder.start_utt()
            decoder.process_raw(narrow.tobytes(), full_utt=True)
            decoder.end_utt()
            text = decoder.hyp().hypstr if decoder.hyp() else ""
        print(json.dumps(text), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
