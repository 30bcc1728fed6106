"""The engine's queues are bounded, requests can be given up, and nonsense costs who sent it its connection."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
from doubles.models import Models
from hypothesis import given
from hypothesis import strategies as st

from runtime.config import Engine
from transceiver import counters
from transceiver.engine import EngineError, Message, frames
from transceiver.engine.client import Client
from transceiver.engine.server import Server
from transceiver.engine.starting import socket_of

_PATIENCE_S = 60.0


@dataclass
class Running:
    """An engine in this process, and a client of it."""

    models: Models
    server: Server
    client: Client
    run: Path

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not true():  # noqa: ASYNC110  # a thread makes it so
                await asyncio.sleep(0.01)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Running]:
    models = Models()
    server = Server(models, idle_s=60)
    listens = asyncio.Event()
    serving = asyncio.create_task(server.serve(socket_of(tmp_path), listens.set))
    await listens.wait()
    client = Client(Engine(run=tmp_path), command=("false",))
    yield Running(models, server, client, tmp_path)
    models.gate.set()
    await client.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def outcomes(part: str) -> dict[str, float]:
    (family,) = counters.ENGINE_REQUESTS.collect()
    return {s.labels["outcome"]: s.value for s in family.samples if s.labels["part"] == part}


def waiting(part: str) -> float:
    (family,) = counters.ENGINE_WAITING.collect()
    return next(s.value for s in family.samples if s.labels["part"] == part)


def said(text: str) -> Message:
    return {"role": "user", "content": text}


async def answered(client: Client, text: str) -> str:
    return "".join([piece async for piece in client.answer(1, [said(text)], most_tokens=1)])


async def test_each_part_answers(engine: Running) -> None:
    client = engine.client
    assert await client.transcribe(b"hello there!", 16000) == "hello there!"
    assert await client.ended(bytes(1600), 16000) == pytest.approx(0.1)
    assert [piece async for piece in client.speak("good day")] == [b"good", b"day"]
    answer = client.answer(7, [{"role": "user", "content": "one two"}], most_tokens=3)
    assert [piece async for piece in answer] == ["one ", "two ", "one "]


async def test_a_full_queue_refuses_at_once(engine: Running) -> None:
    before = outcomes("ears")
    engine.models.gate.clear()
    asked = [asyncio.create_task(engine.client.transcribe(b"%06d" % i, 16000)) for i in range(17)]
    await engine.until(lambda: engine.server.workers["ears"].waiting == 17)
    with pytest.raises(EngineError, match="too many") as caught:
        await engine.client.transcribe(b"one more", 16000)
    assert caught.value.busy
    engine.models.gate.set()
    assert await asyncio.gather(*asked) == [f"{i:06d}" for i in range(17)]
    after = outcomes("ears")
    assert after["busy"] - before["busy"] == 1
    assert after["answered"] - before["answered"] == 17


async def test_a_draft_never_waits(engine: Running) -> None:
    assert await engine.client.transcribe(b"draft!", 16000, draft=True) == "draft!"
    engine.models.gate.clear()
    final = asyncio.create_task(engine.client.transcribe(b"final!", 16000))
    await engine.until(lambda: engine.server.workers["ears"].waiting == 1)
    with pytest.raises(EngineError) as caught:
        await engine.client.transcribe(b"draft!", 16000, draft=True)
    assert caught.value.busy
    engine.models.gate.set()
    assert await final == "final!"


async def test_what_was_given_up_before_its_turn_is_never_computed(engine: Running) -> None:
    engine.models.gate.clear()
    first = asyncio.create_task(engine.client.transcribe(b"first!", 16000))
    await engine.until(lambda: engine.models.heard == ["first!"])
    second = asyncio.create_task(engine.client.transcribe(b"second", 16000))
    await engine.until(lambda: engine.server.workers["ears"].waiting == 2)
    second.cancel()
    await engine.until(lambda: engine.server.workers["ears"].waiting == 1)
    engine.models.gate.set()
    assert await first == "first!"
    assert await engine.client.transcribe(b"third!", 16000) == "third!"
    assert engine.models.heard == ["first!", "third!"]


async def test_what_is_read_ahead_waits_until_nothing_else_is_to_be_done(engine: Running) -> None:
    models, client = engine.models, engine.client
    models.gate.clear()
    answer = asyncio.create_task(answered(client, "wait"))
    await engine.until(lambda: len(models.asked) == 1)
    reading = [asyncio.create_task(client.read(call, [said(f"of {call}")])) for call in (2, 3, 4)]
    await engine.until(lambda: waiting("mind") == 4)
    await client.ended(bytes(1600), 16000)  # is answered after those were taken
    given_up = reading.pop(1)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    await client.ended(bytes(1600), 16000)
    models.gate.set()
    assert await answer == "wait "
    await asyncio.gather(*reading)
    # That of 3 was given up. None was read while an answer was being made.
    assert models.read_ahead == [(["of 2"], 0), (["of 4"], 0)]
    assert await answered(client, "on") == "on "


async def test_too_many_that_wait_to_be_read_are_refused(engine: Running) -> None:
    engine.models.gate.clear()
    answer = asyncio.create_task(answered(engine.client, "wait"))
    await engine.until(lambda: len(engine.models.asked) == 1)
    reading = [asyncio.create_task(engine.client.read(call, [said("so far")])) for call in range(2, 20)]
    await engine.until(lambda: waiting("mind") == 19)
    with pytest.raises(EngineError, match="too many") as caught:
        await engine.client.read(20, [said("so far")])
    assert caught.value.busy
    engine.models.gate.set()
    await asyncio.gather(answer, *reading)
    assert len(engine.models.read_ahead) == 18


async def test_an_answer_that_is_given_up_stops(engine: Running) -> None:
    async with aclosing(engine.client.answer(1, [said("on")], most_tokens=1 << 20)) as answer:
        async for _ in answer:
            break
    await engine.until(engine.models.stopped.is_set)
    await engine.until(lambda: engine.server.workers["mind"].waiting == 0)


async def test_a_model_that_fails_costs_one_request(engine: Running) -> None:
    with pytest.raises(EngineError, match="RuntimeError"):
        await engine.client.transcribe(b"fail", 16000)
    assert await engine.client.transcribe(b"good", 16000) == "good"


async def test_a_rate_that_no_model_knows_is_refused(engine: Running) -> None:
    with pytest.raises(EngineError, match="4000"):
        await engine.client.transcribe(b"1234", 4000)


async def test_a_call_that_is_over_is_forgotten_and_so_are_those_of_a_client_that_left(engine: Running) -> None:
    for call in (1, 2):
        async for _ in engine.client.answer(call, [said("on")], most_tokens=1):
            pass
    engine.client.forget(1)
    await engine.until(lambda: engine.models.forgotten == engine.models.asked[:1])
    await engine.client.close()
    await engine.until(lambda: set(engine.models.forgotten) == set(engine.models.asked))
    with pytest.raises(EngineError, match="closed"):
        await engine.client.start()


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("<I", frames.MOST_BYTES + 1),
        struct.pack("<I", 3) + b"abc",
        frames.packed(frames.Ended(1, b"", 16000)).replace(b"ended", b"other"),
    ],
)
async def test_nonsense_costs_the_connection_and_nothing_else(engine: Running, sent: bytes) -> None:
    await engine.client.start()
    reader, writer = await asyncio.open_unix_connection(socket_of(engine.run))
    writer.write(sent)
    async with asyncio.timeout(_PATIENCE_S):
        said = await reader.read()
    assert isinstance(frames.engine_frame(said[4:]), frames.Hello)
    writer.close()
    assert await engine.client.transcribe(b"good", 16000) == "good"


async def test_a_client_that_does_not_read_is_disconnected(engine: Running) -> None:
    await engine.client.start()
    reader, writer = await asyncio.open_unix_connection(socket_of(engine.run))
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(_written_until_it_fails(writer), _PATIENCE_S)
    writer.close()
    del reader
    assert await engine.client.transcribe(b"good", 16000) == "good"


async def _written_until_it_fails(writer: asyncio.StreamWriter) -> None:
    for id in itertools.count():
        writer.write(frames.packed(frames.Speak(id, "w" * 200_000)))
        await writer.drain()
        await asyncio.sleep(0)


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_a_frame_error(body: bytes) -> None:
    for read in (frames.client_frame, frames.engine_frame):
        try:
            read(body)
        except frames.FrameError:
            continue
