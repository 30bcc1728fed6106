"""Agents where they run: in the loop, or in a thread of their own that raises, hangs, floods and ends."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal

import pytest
from waiting import eventually

from runtime.config import Agents
from runtime.tracing.spans import NOTHING, Span
from transceiver.agents import Base, Item, Line, Response
from transceiver.realtime.config import Config, ResponseParams
from transceiver.realtime.formats import Writer
from transceiver.realtime.items import Items
from transceiver.realtime.playback import Playback
from transceiver.realtime.response import Making, Stage
from transceiver.talk.agent_host import Host, ThreadHost, host
from transceiver.talk.crossing import CrossingResponse

PCM = bytes(960)


class Wire:
    """A line that notes what it was asked, and in which thread."""

    def __init__(self) -> None:
        self.config = Agents()
        self.asked: list[Any] = []
        self.threads: set[int] = set()

    def note(self, *what: Any) -> None:
        self.asked.append(what)
        self.threads.add(threading.get_ident())

    span: Span = NOTHING

    def say(self, pcm: bytes) -> None:
        self.note("say", len(pcm))

    def stop(self) -> None:
        self.note("stop")

    def send_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        self.note("opus")

    def emit(self, event: dict[str, Any]) -> None:
        self.note("emit", event)

    turn = ""

    def transcribing(self, item: str, delta: str) -> None:
        self.note("transcribing", item, delta)

    def transcribed(self, item: str, text: str) -> None:
        self.note("transcribed", item, text)


class Thinker(Base):
    """Runs in its own thread, and holds it up where a test wants that."""

    runs: ClassVar[Literal["loop", "thread"]] = "thread"
    last: ClassVar[Thinker]

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.happened: list[Any] = []
        self.held = threading.Event()
        self.thread = threading.get_ident()
        Thinker.last = self

    def heard(self, pcm: bytes, speaking: bool) -> None:
        self.happened.append("heard")

    def speech_started(self) -> None:
        assert threading.get_ident() == self.thread
        self.happened.append("started")
        self.line.stop()

    def committed(self, item: Item) -> None:
        self.line.transcribed(item.id, "good day")

    def event(self, event: dict[str, Any]) -> None:
        if event["type"] == "hang":
            self.held.wait()
        elif event["type"] == "raise":
            raise RuntimeError("its own trouble")
        elif event["type"] == "flood":
            for i in range(100_000):
                self.line.emit({"i": i})
        elif event["type"] == "shout":
            for _ in range(400):
                self.line.say(bytes(96000))
            self.line.emit({"type": "shouted"})

    async def respond(self, response: Response) -> None:  # type: ignore[override]
        for word in ("one ", "two "):
            await asyncio.sleep(0)
            response.text(word)
        response.done()

    def cancelled(self, response: Response) -> None:
        self.happened.append(("cancelled", response))

    async def close(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.happened.append("close")


@asynccontextmanager
async def an_agent(kind: type[Base] = Thinker) -> AsyncIterator[tuple[Host, Wire, list[str]]]:
    wire, failed = Wire(), list[str]()
    agent = host(kind, wire, failed.append)
    await eventually(lambda: failed or hasattr(Thinker, "last"))
    try:
        yield agent, wire, failed
    finally:
        if hasattr(Thinker, "last"):
            Thinker.last.held.set()
            del Thinker.last
        agent.close()
        await agent.joined()


def a_making(events: list[dict[str, Any]], session: dict[str, Any]) -> Making:
    config = Config("rtc_1", "test")
    config.update(session)
    items = Items(24000, lambda audio: iter(()))
    stage = Stage(events.append, items, Playback(24000), lambda: None, 24000, lambda making: None)  # type: ignore
    return Making(stage, ResponseParams(), config.settings(), [])


async def test_a_thread_answers_on_the_loop() -> None:
    async with an_agent() as (agent, wire, failed):
        agent.speech_started()
        agent.heard(PCM, True)
        agent.committed(Item("item_1"))
        await eventually(lambda: len(wire.asked) == 2)
        assert wire.asked == [("stop",), ("transcribed", "item_1", "good day")]
        assert wire.threads == {threading.get_ident()}
        assert Thinker.last.thread != threading.get_ident()
        assert Thinker.last.happened == ["started", "heard"]
        assert failed == []


@pytest.mark.needs_root
async def test_a_thread_and_its_programs_do_not_go_before_media() -> None:
    seen: list[str] = []

    class Starter(Thinker):
        async def speech_started(self) -> None:  # type: ignore[override]
            process = await asyncio.create_subprocess_exec("nice", stdout=-1)
            seen.append((await process.communicate())[0].decode().strip())

    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    try:
        async with an_agent(Starter) as (agent, _, failed):
            agent.speech_started()
            await eventually(lambda: seen or failed)
        assert (seen, failed) == (["0"], [])
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


async def test_a_coroutine_makes_a_response() -> None:
    async with an_agent() as (agent, _, failed):
        events: list[dict[str, Any]] = []
        making = a_making(events, {"output_modalities": ["text"]})
        agent.respond(making)
        await eventually(lambda: making.over)
        assert [event["delta"] for event in events if "delta" in event] == ["one ", "two "]
        assert failed == []


async def test_a_long_answer_in_one_piece_is_whole() -> None:
    async with an_agent() as (agent, _, _failed):
        making = a_making([], {})
        agent.respond(making)
        await eventually(lambda: making.over)
        making = a_making([], {})
        response = CrossingResponse(making, agent._cross)
        threading.Thread(target=response.audio, args=(bytes(48000 * 60 + 2),)).start()
        await eventually(lambda: making.spoken_ms >= 60_000)


async def test_a_long_answer_on_the_loop_itself_lets_others_come_between() -> None:
    async with an_agent() as (agent, _, failed):
        events: list[dict[str, Any]] = []
        items = Items(24000, lambda audio: iter(()))
        stage = Stage(events.append, items, None, lambda: Writer("audio/pcm", 24000), 24000, lambda making: None)
        making = Making(stage, ResponseParams(), Config("rtc_1", "test").settings(), [])
        response = CrossingResponse(making, agent._cross)
        response.audio(bytes(48000 * 20))
        response.transcript("all of it")
        response.done()
        assert making.spoken_ms == 1000
        turns = 0
        while not making.over:
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 19
        assert (making.spoken_ms, making.status, failed) == (20_000, "completed", [])
        assert [event["type"] for event in events if "done" not in event["type"]][-2:] == [
            "response.output_audio.delta",
            "response.output_audio_transcript.delta",
        ]


async def test_a_cancelled_response_is_the_one_that_was_asked_for() -> None:
    async with an_agent() as (agent, _, _failed):
        making = a_making([], {})
        agent.respond(making)
        agent.cancelled(making)
        await eventually(lambda: Thinker.last.happened)
        (_, response) = Thinker.last.happened[0]
        assert response.id == making.id


@pytest.mark.parametrize("what", ["raise", "flood"])
async def test_an_agent_that_raises_or_floods_has_failed(what: str) -> None:
    async with an_agent() as (agent, _, failed):
        held = time.monotonic()
        agent.event({"type": what})
        if what == "flood":
            # The media loop does not drain what is said meanwhile.
            while time.monotonic() - held < 30 and not agent._cross.closed:
                pass
        await eventually(lambda: failed)
        assert len(failed) == 1


async def test_an_agent_that_hangs_has_failed_and_nobody_waits_for_it() -> None:
    async with an_agent() as (agent, _, failed):
        agent.event({"type": "hang"})
        await eventually(lambda: agent._busy_since is not None)  # type: ignore[attr-defined]
        agent.check(time.monotonic())
        assert failed == []
        agent.check(time.monotonic() + 31)
        agent.check(time.monotonic() + 32)
        assert len(failed) == 1
        for _ in range(1000):
            agent.heard(PCM, True)


async def test_audio_waits_for_an_agent_and_the_oldest_goes_first() -> None:
    async with an_agent() as (agent, _, failed):
        agent.event({"type": "hang"})
        await eventually(lambda: agent._busy_since is not None)  # type: ignore[attr-defined]
        agent.speech_started()
        for _ in range(1000):
            agent.heard(PCM, True)
        Thinker.last.held.set()
        await eventually(lambda: len(Thinker.last.happened) >= 101)
        assert Thinker.last.happened == ["started", *["heard"] * 100]
        assert failed == []


async def test_an_agent_that_does_not_keep_up_with_events_has_failed() -> None:
    async with an_agent() as (agent, _, failed):
        agent.event({"type": "hang"})
        for _ in range(300):
            agent.speech_started()
        await eventually(lambda: failed)
        assert len(failed) == 1


async def test_what_it_says_is_bounded_and_nothing_else_is_lost_by_that() -> None:
    async with an_agent() as (agent, wire, failed):
        agent.event({"type": "shout"})
        await eventually(lambda: ("emit", {"type": "shouted"}) in wire.asked)
        assert failed == []


async def test_closing_lets_close_come_to_its_end_and_ends_the_thread() -> None:
    wire, failed = Wire(), list[str]()
    agent = host(Thinker, wire, failed.append)
    assert isinstance(agent, ThreadHost)
    await eventually(lambda: hasattr(Thinker, "last"))
    thinker = Thinker.last
    del Thinker.last
    agent.speech_started()
    agent.close()
    agent.speech_started()
    await agent.joined()
    agent._thread.join(30)
    assert not agent._thread.is_alive()
    assert thinker.happened[-1] == "close"
    assert failed == []


class Broken(Base):
    runs: ClassVar[Literal["loop", "thread"]] = "thread"

    def __init__(self, line: Line) -> None:
        raise RuntimeError("it cannot be made")


async def test_an_agent_that_cannot_be_made_has_failed() -> None:
    failed: list[str] = []
    agent = host(Broken, Wire(), failed.append)
    await eventually(lambda: failed)
    agent.heard(PCM, True)
    agent.close()
    await agent.joined()
    assert len(failed) == 1


class Loud(Base):
    def event(self, event: dict[str, Any]) -> None:
        threading.Thread(target=self.line.emit, args=(event,)).start()

    def heard(self, pcm: bytes, speaking: bool) -> None:
        raise RuntimeError("its own trouble")


async def test_an_agent_in_the_loop_may_speak_from_threads_and_raising_is_told() -> None:
    wire, failed = Wire(), list[str]()
    agent = host(Loud, wire, failed.append)
    agent.event({"type": "x"})
    await eventually(lambda: wire.asked)
    assert wire.threads == {threading.get_ident()}
    agent.heard(PCM, True)
    assert len(failed) == 1
    agent.close()
    agent.heard(PCM, True)
    assert len(failed) == 1
