"""The engine's process is started by whoever needs it, once, and again when it dies or hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from paths import SUPPORT

from runtime.config import Engine
from transceiver.engine import EngineError
from transceiver.engine.client import Client
from transceiver.engine.starting import socket_of

DOUBLE = SUPPORT / "doubles" / "models.py"
_PATIENCE_S = 60.0


@asynccontextmanager
async def client(run: Path, hangs: str = "60", patience_s: float = _PATIENCE_S) -> AsyncIterator[Client]:
    command = (sys.executable, str(DOUBLE), str(run), hangs)
    made = Client(Engine(run=run), command=command, patience_s=patience_s)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Path]:
    """A folder, whose engine is gone at the end."""
    yield tmp_path
    for pid in engines(tmp_path):
        os.kill(pid, signal.SIGKILL)


def engines(run: Path) -> list[int]:
    """The processes that run the double for ``run``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(DOUBLE).encode() in words and str(run).encode() in words:
            found.append(int(folder.name))
    return found


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not true():  # noqa: ASYNC110  # another process makes it so
            await asyncio.sleep(0.05)


async def until_heard(engine: Client, text: str) -> None:
    """Asks until it is answered: an engine that died is started again, soon or a little later."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            try:
                assert await engine.transcribe(text.encode(), 16000) == text
                return
            except EngineError:
                await asyncio.sleep(0.05)


async def test_all_who_come_at_once_have_one_engine(run: Path) -> None:
    async with client(run) as one, client(run) as two, client(run) as three:
        await asyncio.gather(*(each.start() for each in (one, two, three)))
        assert (
            await asyncio.gather(*(each.transcribe(b"hello!", 16000) for each in (one, two, three))) == ["hello!"] * 3
        )
        assert len(engines(run)) == 1


async def test_an_engine_that_dies_in_mid_answer_costs_that_answer(run: Path) -> None:
    async with client(run) as engine:
        answer = engine.answer(1, [{"role": "user", "content": "one two die"}], most_tokens=9)
        with pytest.raises(EngineError, match="ended"):
            _ = [piece async for piece in answer]
        await until_heard(engine, "alive!")


async def test_a_model_that_hangs_ends_the_engine_and_the_next_one_serves(run: Path) -> None:
    async with client(run, hangs="0.5") as engine:
        with pytest.raises(EngineError, match="ended"):
            await engine.transcribe(b"hang", 16000)
        await until_heard(engine, "alive!")


async def test_an_engine_that_stands_still_is_killed_and_replaced(run: Path) -> None:
    async with client(run, patience_s=0.5) as engine:
        await until_heard(engine, "before")
        (first,) = engines(run)
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(EngineError, match="said nothing"):
            await engine.transcribe(b"hello!", 16000)
        await until_heard(engine, "after!")
        await until(lambda: first not in engines(run))


async def test_an_engine_that_cannot_load_says_why_and_is_not_tried_all_the_time(run: Path) -> None:
    async with client(run, hangs="broken") as engine:
        whys = set()
        for _ in range(3):
            with pytest.raises(EngineError) as caught:
                async with asyncio.timeout(_PATIENCE_S):
                    await engine.start()
            whys.add(str(caught.value).partition(" (tried")[0])
        assert whys == {"the models cannot be used: the weights are gone"}


async def test_an_engine_nobody_is_connected_to_ends_with_who_started_it(run: Path) -> None:
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom runtime.config import Engine\n"
        "from transceiver.engine.client import Client\n"
        "run, double = Path(sys.argv[1]), sys.argv[2]\n"
        "made = Client(Engine(run=run), command=(sys.executable, double, str(run), '60'))\n"
        "asyncio.run(made.start())\n"
    )
    starter = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(run), str(DOUBLE))
    assert await starter.wait() == 0
    await until(lambda: not engines(run))
    assert not socket_of(run).exists()


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with client(tmp_path / "file" / "run") as engine:
        with pytest.raises(EngineError, match="file"):
            await engine.start()


async def test_a_speech_that_nobody_wants_any_more_ends(run: Path) -> None:
    async with client(run) as engine:
        async with aclosing(engine.speak("one two three " * 1000)) as speech:
            async for pcm in speech:
                assert pcm == b"one"
                break
        await until_heard(engine, "alive!")
