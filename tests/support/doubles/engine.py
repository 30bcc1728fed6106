"""An engine of the test's own, as an agent has a connection to one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from transceiver.engine import EngineError, Message

__all__ = ["Engine"]


class Engine:
    """Hears ``words``, thinks ``pieces`` and speaks a sample a letter. What is in ``closed`` waits; what is in ``bad``
    fails, after ``good_pieces`` of an answer."""

    def __init__(self) -> None:
        self.words: Any = "who was the first on the moon"
        self.pieces = ["It was Neil Armstrong, ", "in 1969. And", " then"]
        self.good_pieces = 0
        self.bad: set[str] = set()
        self.gates = {part: asyncio.Event() for part in ("ears", "mind", "voice")}
        self.asked: list[list[Message]] = []
        self.read_ahead: list[list[Message]] = []
        self.heard: list[tuple[int, bool]] = []
        self.spoken: list[str] = []
        self.ended_early: list[str] = []
        self.forgotten: list[int] = []
        for gate in self.gates.values():
            gate.set()

    async def start(self) -> None: ...

    async def transcribe(self, pcm: bytes, rate: int, *, draft: bool = False) -> str:
        assert rate == 24000
        self.heard.append((len(pcm), draft))
        await self._pass("ears")
        return str(self.words(pcm) if callable(self.words) else self.words)

    async def answer(self, call: int, messages: Sequence[Message], *, most_tokens: int) -> AsyncGenerator[str, None]:
        if most_tokens == 1:  # only so that the instructions are read
            return
        self.asked.append(list(messages))
        try:
            for i, piece in enumerate(self.pieces):
                if i >= self.good_pieces:
                    await self._pass("mind")
                yield piece
        except (asyncio.CancelledError, GeneratorExit):
            self.ended_early.append("mind")
            raise

    async def read(self, call: int, messages: Sequence[Message]) -> None:
        try:
            await self._pass("mind")
        except asyncio.CancelledError:
            self.ended_early.append("reading")
            raise
        self.read_ahead.append(list(messages))

    async def speak(self, text: str) -> AsyncGenerator[bytes, None]:
        self.spoken.append(text)
        try:
            await self._pass("voice")
            yield b"\1\2" * len(text)
        except (asyncio.CancelledError, GeneratorExit):
            self.ended_early.append("voice")
            raise

    async def ended(self, pcm: bytes, rate: int) -> float:
        raise AssertionError("this agent finds no turns")

    def forget(self, call: int) -> None:
        self.forgotten.append(call)

    async def close(self) -> None: ...

    async def _pass(self, part: str) -> None:
        await self.gates[part].wait()
        if part in self.bad:
            raise EngineError("the engine ended")
