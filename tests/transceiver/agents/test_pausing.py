"""The hook for pauses where agents run: in the loop, in a thread that does not keep up, and at another rate."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from responding import Line as Wire
from waiting import eventually

from transceiver.agents import Base, Item, Line
from transceiver.talk.agent_host import host
from transceiver.talk.crossing import Crossing, CrossingLine
from transceiver.talk.rates import adapted

PCM = bytes(range(256)) * 30


class Worker(Base):
    """Works in pauses, and writes down what it is told."""

    pauses_ms: ClassVar[tuple[int, ...]] = (200, 400)
    last: ClassVar[Worker]

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.told: list[Any] = []
        self.held = threading.Event()
        type(self).last = self

    def speech_started(self) -> None:
        self.told.append("started")
        self.held.wait(20)

    def speech_paused(self, ms: int, items: Sequence[Item]) -> None:
        self.told.append((ms, items[-1].id, len(items[-1].pcm)))

    def speech_resumed(self) -> None:
        self.told.append("resumed")

    def speech_stopped(self) -> None:
        self.told.append("stopped")


class Threaded(Worker):
    runs: ClassVar[Literal["loop", "thread"]] = "thread"


class Deaf(Base):
    """Has no such hook."""


def turn(size: int) -> list[Item]:
    return [Item("item_1", role="user", pcm=PCM[:size])]


async def test_only_agents_that_work_in_pauses_ask_for_them() -> None:
    ended: list[str] = []
    worker, deaf = (host(kind, Wire(), ended.append) for kind in (Worker, Deaf))
    assert (tuple(worker.pauses_ms), worker.wants_turns) == ((200, 400), True)
    assert (tuple(deaf.pauses_ms), deaf.wants_turns) == ((), False)
    worker.speech_paused(200, turn(100))
    worker.speech_resumed()
    assert Worker.last.told == [(200, "item_1", 100), "resumed"]
    assert not ended


async def test_pauses_that_a_busy_agent_has_not_heard_of_do_not_pile_up() -> None:
    ended: list[str] = []
    agent = host(Threaded, Wire(), ended.append)
    try:
        agent.speech_started()
        await eventually(lambda: hasattr(Threaded, "last") and Threaded.last.told)
        for i in range(300):
            agent.speech_paused(200, turn(i))
            agent.speech_paused(400, turn(i))
        agent.speech_resumed()
        agent.speech_paused(200, turn(1000))
        agent.speech_paused(400, turn(2000))
        agent.speech_stopped()
        Threaded.last.held.set()
        await eventually(lambda: "stopped" in Threaded.last.told)
        assert Threaded.last.told == ["started", "resumed", (400, "item_1", 2000), "stopped"]
        assert not ended
    finally:
        Threaded.last.held.set()
        agent.close()
        await agent.joined()


class Slow(Worker):
    rate_hz: ClassVar[Literal[8000, 16000, 24000, 48000]] = 16000


def test_the_turn_so_far_has_the_rate_of_the_agent() -> None:
    agent = adapted(Slow, Wire(), 48000)
    before = Item("item_0", role="user", pcm=PCM)
    agent.speech_paused(200, [before, *turn(6000)])
    agent.speech_paused(400, [before, *turn(6600)])
    assert [told[2] for told in Slow.last.told] == [2000, 2200]


async def test_one_that_has_lost_the_call_tells_no_more_words() -> None:
    wire = Wire()
    wire.turn = "item_7"
    line = CrossingLine(wire, Crossing(asyncio.get_running_loop(), print))
    line.transcribing(line.turn, "good ")
    line.cut()
    line.transcribing(line.turn, "day")
    assert wire.parts == [("item_7", "good ")]
