"""The judge of turns for the media loop: it has the engine asked whether a caller has finished, or which words were
said over an agent, and waits for nothing.

A first question starts the engine, where that does not run, and gets no answer; neither does one too many, or one that
takes long. Turns end by silence alone then, and any voice interrupts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any, TypeVar

from runtime import config, logs
from transceiver.engine import Engine, EngineError, weights
from transceiver.engine.client import Client

__all__ = ["Judge", "found"]

_MOST_ASKED = 8
_PATIENCE_S = 1.0
_AGAIN_S = 30.0  # after a start that failed

Answer = TypeVar("Answer")


class Judge:
    """A judge who asks ``engine``. It is called in the loop whose calls it judges, and tells in it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asked: set[asyncio.Task[None]] = set()
        self._starting: asyncio.Task[None] | None = None
        self._ready = False
        self._not_before = 0.0

    def ended(self, pcm: bytes, rate_hz: int, tell: Callable[[float | None], None]) -> None:
        """Has ``tell`` called with the probability, 0 to 1, that who speaks in mono PCM16 has finished; with None where
        nobody can say."""
        self._ask(lambda: self._engine.ended(pcm, rate_hz), tell)

    def words(self, pcm: bytes, rate_hz: int, tell: Callable[[str | None], None]) -> None:
        """Has ``tell`` called with the words in mono PCM16, which are none where nothing was said; with None where
        nobody can say."""
        self._ask(lambda: self._engine.transcribe(pcm, rate_hz, draft=True), tell)

    def _ask(self, question: Callable[[], Coroutine[Any, Any, Answer]], tell: Callable[[Answer | None], None]) -> None:
        loop = asyncio.get_running_loop()
        if not self._ready:
            if self._starting is None and loop.time() >= self._not_before:
                self._starting = loop.create_task(self._start())
            tell(None)
        elif len(self._asked) >= _MOST_ASKED:
            tell(None)
        else:
            task = loop.create_task(self._answer(question, tell))
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)

    async def close(self) -> None:
        """Ends it; who still waits is told nothing."""
        tasks = [*self._asked, *([self._starting] if self._starting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._engine.close()

    async def _start(self) -> None:
        try:
            await self._engine.start()
            self._ready = True
        except (EngineError, OSError) as error:
            logs.get().warning("turns are not judged", why=str(error))
            self._not_before = asyncio.get_running_loop().time() + _AGAIN_S
        finally:
            self._starting = None

    async def _answer(
        self, question: Callable[[], Coroutine[Any, Any, Answer]], tell: Callable[[Answer | None], None]
    ) -> None:
        answer: Answer | None = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answer = await question()
        except EngineError as error:
            self._ready = error.busy  # what is gone is started by the next question
        except (OSError, TimeoutError):
            self._ready = False
        tell(answer)


def found(about: config.Engine) -> Judge | None:
    """A judge, where the model is installed; the engine looks at it more closely."""
    if weights.TURN.folder is None or find_spec("onnxruntime") is None:
        return None
    return Judge(Client(about))
