"""The small models of the demo, loaded while the rest of it is raised, and the question that their voice asks.

``python -m demo.models RUN WAV`` starts their engine in the folder RUN and has it say the question into the file WAV,
which callers can speak with. It prints an empty line then, or one that says why there are no models here, and keeps the
engine for as long as its standard input is open.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import wave
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab.appliance import Place, end
from runtime.config import Engine
from transceiver.engine import VOICE_RATE_HZ, EngineError, weights
from transceiver.engine.client import Client

__all__ = ["LISTENS_S", "QUESTION", "Models"]

QUESTION = "What is the capital of France?"
LISTENS_S = 8.0  # from the end of the question
_LEAD_S = 0.5
_ENDS_WITHIN_S = 5.0


class Models:
    """The engine of the agent ``local``, from ``with`` to its end. ``run`` is its folder, which is made; what it logs
    goes to a file there. ``place`` is where it runs."""

    def __init__(self, run: Path, place: Place) -> None:
        self.run, self.recording = run, run / "question.wav"
        self._place = place
        self._process: subprocess.Popen[Any] | None = None

    def __enter__(self) -> Self:
        self.run.mkdir(mode=0o700)
        argv = [sys.executable, "-m", "demo.models", str(self.run), str(self.recording)]
        with (self.run / "log").open("ab") as log:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            # A session of its own: Ctrl-C at a terminal is for whoever runs the demo.
            self._process = self._place.popen(argv, start_new_session=True, text=True, **pipes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            end(process, _ENDS_WITHIN_S)
        if process.stdout is not None:
            process.stdout.close()

    def trouble(self) -> str:
        """The reason why they cannot be used, in one line; empty when they are loaded, for which this waits."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return line.strip() if line else f"the models ended: {_last_line(self.run / 'log')}"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "they said nothing")


async def _asked(client: Client) -> bytes:
    async with aclosing(client.speak(QUESTION)) as speech:
        return b"".join([pcm async for pcm in speech])


def _record(path: Path, pcm: bytes) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(VOICE_RATE_HZ)
        file.writeframes(_silence(_LEAD_S) + pcm + _silence(LISTENS_S))


def _silence(seconds: float) -> bytes:
    return bytes(2 * round(seconds * VOICE_RATE_HZ))


async def _started(client: Client) -> None:
    """Waits longer than a call would: the machine may be busy with what the demo raises, and with other things."""
    for last in (False, False, True):
        try:
            await client.start()
            return
        except EngineError:
            if last:
                raise


async def _keep(run: Path, wav: Path) -> None:
    client = Client(Engine.model_validate({"run": run, "idle_s": 1}))
    try:
        await _started(client)
        _record(wav, await _asked(client))
        print(flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await client.close()


def main(run: Path, wav: Path) -> None:
    try:
        why = weights.trouble()
        if why is None:
            asyncio.run(_keep(run, wav))
    except EngineError as e:
        why = str(e)
    if why is not None:
        print(why, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
