"""The judge of turns, with an engine that a test has in hand: whatever that does, nobody waits for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from waiting import eventually

from runtime import config
from transceiver.engine import EngineError, weights
from transceiver.engine.judge import Judge, found


class Engine:
    """It is started when the test says so, and answers with ``answer``."""

    def __init__(self) -> None:
        self.starts = 0
        self.started = asyncio.Event()
        self.answer: float | Exception | None = 0.75
        self.asked = 0
        self.closed = False

    async def start(self) -> None:
        self.starts += 1
        await self.started.wait()
        if self.answer is None:
            raise EngineError("no memory")

    async def ended(self, pcm: bytes, rate: int) -> float:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.Event().wait()
        assert isinstance(self.answer, float)
        return self.answer

    async def close(self) -> None:
        self.closed = True

    async def transcribe(self, pcm: bytes, rate: int, *, draft: bool = False) -> str:
        assert draft, "nobody's turn is late for it"
        return f"{len(pcm)} bytes"

    def speak(self, text: str) -> AsyncGenerator[bytes, None]:
        raise NotImplementedError

    def forget(self, call: int) -> None: ...


async def ready() -> tuple[Judge, Engine, list[float | None]]:
    """A judge whose engine runs, and what it told the one who asked."""
    engine, told = Engine(), []
    judge = Judge(engine)  # type: ignore[arg-type]
    judge.ended(b"", 24000, told.append)
    assert told == [None], "the first question starts the engine and waits for nothing"
    engine.started.set()
    await eventually(lambda: judge._ready)
    told.clear()
    return judge, engine, told


async def test_who_asks_is_told_the_probability_later() -> None:
    judge, engine, told = await ready()
    judge.ended(b"\0\0", 24000, told.append)
    assert told == []
    await eventually(lambda: told == [0.75])
    await judge.close()
    assert (engine.starts, engine.closed) == (1, True)


async def test_who_asks_for_words_is_told_them_later() -> None:
    judge, _, _ = await ready()
    told: list[str | None] = []
    judge.words(b"\0\0", 24000, told.append)
    assert told == []
    await eventually(lambda: told == ["2 bytes"])
    await judge.close()


async def test_while_the_engine_starts_nobody_waits_and_it_is_started_once() -> None:
    engine, told = Engine(), []
    judge = Judge(engine)  # type: ignore[arg-type]
    for _ in range(3):
        judge.ended(b"", 24000, told.append)
        await asyncio.sleep(0)
    assert (told, engine.starts) == ([None] * 3, 1)
    await judge.close()


async def test_one_that_cannot_start_is_not_started_again_at_once() -> None:
    engine, told = Engine(), []
    engine.answer = None
    engine.started.set()
    judge = Judge(engine)  # type: ignore[arg-type]
    judge.ended(b"", 24000, told.append)
    await eventually(lambda: judge._starting is None)
    judge.ended(b"", 24000, told.append)
    assert (told, engine.starts, judge._starting) == ([None, None], 1, None)
    await judge.close()


@pytest.mark.parametrize("busy", [True, False])
async def test_an_engine_that_refuses_says_nothing_and_one_that_is_gone_is_started_again(busy: bool) -> None:
    judge, engine, told = await ready()
    engine.answer = EngineError("too much", busy=busy)
    judge.ended(b"", 24000, told.append)
    await eventually(lambda: told == [None])
    engine.answer = 0.25
    judge.ended(b"", 24000, told.append)
    await eventually(lambda: engine.starts == (1 if busy else 2) and len(told) == 2)
    await judge.close()


async def test_questions_that_wait_are_bounded_and_end_with_it() -> None:
    judge, engine, told = await ready()
    engine.answer = None
    for _ in range(100):
        judge.ended(b"", 24000, told.append)
    assert told == [None] * 92
    await judge.close()
    assert told == [None] * 92


def test_there_is_none_where_the_model_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "TURN", weights.Weights("smart-turn", "no_such_package_of_anybody", {}))
    assert found(config.Engine(run=tmp_path)) is None
