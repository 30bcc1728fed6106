"""Text to speech without network: espeak-ng, Debian's, a process for each sentence."""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncGenerator

import av
import numpy as np

from transceiver.speech.tasks import Failure

__all__ = ["speak"]

_HEADER = 44  # of the WAV file: its length is not known yet, so that no reader of files takes it
_RATE_AT = 24
_PIECE = 8192
_ENGLISH = "en"
_VOICE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9-]{1,12})?(\+[A-Za-z0-9]{1,12})?")


async def speak(text: str, voice: str = "") -> AsyncGenerator[bytes, None]:
    """``text`` as 24 kHz mono PCM16; ``voice`` is espeak-ng's ("en-us+f3"), any other name its English one.

    Raises Failure where there is no espeak-ng.
    """
    named = voice if _VOICE.fullmatch(voice) else _ENGLISH
    try:
        process = await asyncio.create_subprocess_exec(
            "espeak-ng", "-v", named, "-s", "165", "--stdin", "--stdout", stdin=-1, stdout=-1, stderr=-3
        )
    except FileNotFoundError:
        raise Failure("espeak-ng is not installed: scripts/setup does that, or apt-get install espeak-ng") from None
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(text.encode())
        process.stdin.close()
        try:
            head = await process.stdout.readexactly(_HEADER)
        except asyncio.IncompleteReadError:
            if named == _ENGLISH:
                raise Failure("espeak-ng says nothing") from None
            # No language of that name: "ash" is a voice of OpenAI's, and "zz" nobody's.
            async with contextlib.aclosing(speak(text)) as english:
                async for pcm in english:
                    yield pcm
            return
        rate = struct.unpack_from("<I", head, _RATE_AT)[0]
        resampler = av.AudioResampler(format="s16", layout="mono", rate=24000)
        odd = b""
        while piece := await process.stdout.read(_PIECE):
            pcm = odd + piece
            whole = len(pcm) & ~1
            odd = pcm[whole:]
            if whole:
                frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm[:whole], np.int16)[None], "s16", "mono")
                frame.sample_rate = rate
                yield b"".join(bytes(out.to_ndarray().tobytes()) for out in resampler.resample(frame))
        yield b"".join(bytes(out.to_ndarray().tobytes()) for out in resampler.resample(None))
    finally:
        # One that has ended is left to asyncio, which would else not find it any more.
        if not process.stdout.at_eof():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        # Without this the pipe stays open until somebody has read all of it.
        await process.communicate()
