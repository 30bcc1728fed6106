"""Conversations of a session that moves: the turn that is spoken, the answer that is heard, what the agent knows."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import pytest
from session_moves import MovingCall, a_moving_call
from session_run import of_type, until

from caller.voice import generated
from rtc.codecs.opus import Encoder
from transceiver import session
from transceiver.agents import Base, Item, Line, Response, parrot
from transceiver.counters import TX_FRAMES
from transceiver.talk import agent_host

EVERY = 7  # frames: a move


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks are made up for and agents are waited for, however long the machine does something else."""
    monkeypatch.setattr(session, "_MOST_MADE_UP", 10_000)
    monkeypatch.setattr(agent_host, "_STATE_S", 30.0)


def phrase(seconds: float) -> list[bytes]:
    """Opus packets of somebody who speaks, and then is silent for a second."""
    encoder, pcm = Encoder(24000), generated(seconds + 4, seed=3).pcm(24000)
    spoken = pcm[: round(seconds * 48000) // 960 * 960] + bytes(48000)
    return [encoder.encode(spoken[at : at + 960]) for at in range(0, len(spoken), 960)]


async def says(call: MovingCall, packets: list[bytes]) -> None:
    for n, payload in enumerate(packets):
        call.speak(payload)
        heard = len(call.rtp)
        await until(lambda heard=heard: len(call.rtp) > heard)  # type: ignore[misc]
        if n % EVERY == EVERY - 1:
            await call.move()


async def test_a_turn_is_heard_and_answered_whole_through_moves_in_speech_and_in_silence() -> None:
    async with a_moving_call(parrot.Agent) as call:
        channel = await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        before = TX_FRAMES["sent"]
        await says(call, phrase(1.0))
        await until(lambda: of_type(call, "output_audio_buffer.started"))
        for _ in range(8):
            await call.move()
            heard = len(call.rtp)
            await until(lambda heard=heard: len(call.rtp) > heard + 3)  # type: ignore[misc]
        await until(lambda: of_type(call, "output_audio_buffer.stopped"))
        await call.move()
        (done,) = of_type(call, "response.done")
        assert done["response"]["status"] == "completed"
        for type_ in ("input_audio_buffer.speech_started", "input_audio_buffer.committed", "response.created"):
            assert len(of_type(call, type_)) == 1, type_
        item = done["response"]["output"][0]["id"]
        channel.send(json.dumps({"type": "conversation.item.retrieve", "item_id": item}))
        await until(lambda: of_type(call, "conversation.item.retrieved"))
        (retrieved,) = of_type(call, "conversation.item.retrieved")
        assert retrieved["item"]["content"] == [{"type": "output_audio", "transcript": "(your own words)"}]
        assert not of_type(call, "error")
        # All of the answer was sent, in one stream.
        entry = call.session.talk.conversation._items.get(item)  # type: ignore[attr-defined]
        assert TX_FRAMES["sent"] - before == -(-entry.audio_ms // 20)
        assert {(b.sequence - a.sequence) & 0xFFFF for a, b in pairwise(call.rtp)} == {1}
        assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(call.rtp)} == {960}
        assert call.session.stream.so_far()["lost"] == 0
        call.numbers()


# --- agents that know something ---


class Knowing(Base):
    """An agent that keeps count of its session, and of itself."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.known = {"events": 0}
        self.told: list[Any] = []
        type(self).all.append(self)

    def event(self, event: dict[str, Any]) -> None:
        self.known["events"] += 1
        self.told.append(event)
        self.line.emit({"type": "its.count", "events": self.known["events"]})

    def respond(self, response: Response) -> None:
        self.told.append(response.id)

    def state(self) -> object:
        return self.known

    def resume(self, state: object, items: Sequence[Item]) -> None:
        self.told.append(("resume", state, [item.text for item in items]))
        self.known = dict(state) if isinstance(state, dict) else {"events": 0}

    all: ClassVar[list[Knowing]] = []


class KnowingInThread(Knowing):
    runs: ClassVar[Literal["loop", "thread"]] = "thread"
    all: ClassVar[list[Knowing]] = []

    async def state(self) -> object:  # type: ignore[override]
        await asyncio.sleep(0)
        return self.known


class Busy(KnowingInThread):
    """One that has no time to be asked, until it is let go."""

    let_go: ClassVar[threading.Event]
    all: ClassVar[list[Knowing]] = []

    def event(self, event: dict[str, Any]) -> None:
        type(self).let_go.wait()
        super().event(event)


class Raising(Knowing):
    all: ClassVar[list[Knowing]] = []

    def state(self) -> object:
        raise RuntimeError("its own trouble")


class Large(KnowingInThread):
    all: ClassVar[list[Knowing]] = []

    async def state(self) -> object:
        return bytes(1 << 20)


class Unspeakable(Knowing):
    all: ClassVar[list[Knowing]] = []

    def state(self) -> object:
        return self


HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}


async def talking(call: MovingCall) -> None:
    """The client says a word, and sends the agent an event."""
    channel = await call.open_channel()
    channel.send(json.dumps({"type": "conversation.item.create", "item": HELLO}))
    channel.send('{"type": "its.own", "n": 1}')
    await until(lambda: of_type(call, "conversation.item.done"))


@pytest.mark.parametrize("kind", [Knowing, KnowingInThread])
async def test_what_an_agent_knows_goes_along(kind: type[Knowing]) -> None:
    kind.all.clear()
    async with a_moving_call(kind) as call:
        await talking(call)
        await until(lambda: of_type(call, "its.count"))
        for n in range(3):
            await call.move()
            assert call.channel is not None
            call.channel.send('{"type": "its.own", "n": 2}')
            await until(lambda n=n: len(of_type(call, "its.count")) == n + 2)  # type: ignore[misc]
        assert [event["events"] for event in of_type(call, "its.count")] == [1, 2, 3, 4]
        assert len(kind.all) == 4
        assert kind.all[-1].told[0] == ("resume", {"events": 3}, ["hello"])


@pytest.mark.parametrize("kind", [Raising, Large, Unspeakable])
async def test_an_agent_whose_state_is_of_no_use_is_moved_without(kind: type[Knowing]) -> None:
    kind.all.clear()
    async with a_moving_call(kind) as call:
        await talking(call)
        await until(lambda: of_type(call, "its.count"))
        await call.move()
        await until(lambda: kind.all[-1].told)
        assert kind.all[-1].told[0] == ("resume", None, ["hello"])
        assert not call.ended


async def test_an_agent_that_does_not_answer_in_time_is_moved_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_host, "_STATE_S", 0.05)
    Busy.all.clear()
    Busy.let_go = threading.Event()
    async with a_moving_call(Busy) as call:
        await talking(call)
        former = call.session
        other = call.taken_up(await call.left())
        former.forsake()
        call.session = other
        other.stay()
        await until(lambda: Busy.all[-1].told)
        assert Busy.all[-1].told[0] == ("resume", None, ["hello"])
        Busy.let_go.set()
        await former.closed()


async def test_an_event_that_the_agent_had_not_taken_is_given_to_the_next() -> None:
    KnowingInThread.all.clear()
    async with a_moving_call(KnowingInThread) as call:
        await talking(call)
        await until(lambda: of_type(call, "its.count"))
        await call.session.talk.hold()
        assert call.channel is not None
        call.channel.send('{"type": "its.own", "n": "late"}')
        call.channel.send('{"type": "conversation.item.retrieve", "item_id": "none"}')
        await until(lambda: of_type(call, "error"))
        await call.session.transport.hold()
        other = call.taken_up(call.session.leave())
        former, call.session = call.session, other
        former.forsake()
        other.stay()
        await until(lambda: len(of_type(call, "its.count")) == 2)
        assert of_type(call, "its.count")[1]["events"] == 2
        assert KnowingInThread.all[1].told[1] == {"type": "its.own", "n": "late"}
        call.data = b""
        await former.closed()


async def test_an_agent_in_a_thread_goes_on_where_its_session_stays() -> None:
    KnowingInThread.all.clear()
    async with a_moving_call(KnowingInThread) as call:
        await talking(call)
        await until(lambda: of_type(call, "its.count"))
        await call.left()
        agent = KnowingInThread.all[0]
        agent.line.emit({"type": "its.word"})
        await asyncio.sleep(0.02)
        assert not of_type(call, "its.word")
        call.session.stay()
        await until(lambda: of_type(call, "its.word"))
        assert call.channel is not None
        call.channel.send('{"type": "its.own"}')
        await until(lambda: len(of_type(call, "its.count")) == 2)
        assert len(KnowingInThread.all) == 1


async def test_what_was_asked_is_asked_of_the_next_agent() -> None:
    Knowing.all.clear()
    async with a_moving_call(Knowing) as call:
        await talking(call)
        assert call.channel is not None
        call.channel.send('{"type": "response.create"}')
        await until(lambda: of_type(call, "response.created"))
        await call.move()
        (created,) = of_type(call, "response.created")
        assert Knowing.all[-1].told[-1] == created["response"]["id"]


async def test_an_agent_that_cannot_be_made_leaves_the_session_where_it_is() -> None:
    class Once(Base):
        made = 0

        def __init__(self, line: Line) -> None:
            super().__init__(line)
            type(self).made += 1
            if self.made > 1:
                raise RuntimeError("there is one")

    async with a_moving_call(Once) as call:
        found = await call.left()
        with pytest.raises(ValueError, match="there is one"):
            call.taken_up(found)
        call.session.stay()
        sent = len(call.rtp)
        await until(lambda: len(call.rtp) > sent)
        call.numbers()
        assert not call.ended
