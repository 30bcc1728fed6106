"""Hand-offs of agents under a live call: who has it, what the successor knows, and what the caller hears."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import pytest
from handing_off import Desk, a_call_of
from session_moves import MovingCall
from session_run import of_type, until, voice
from waiting import eventually

from transceiver import handoffs, session
from transceiver.agents import Base, Item, Line, Response, Settings, echo, loopback, parrot
from transceiver.counters import AGENT_HANDOFFS
from transceiver.refusing import RequestError
from wire import messages


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks are made up for, however long the machine does something else."""
    monkeypatch.setattr(session, "_MOST_MADE_UP", 10_000)


class Noting(Base):
    """An agent that writes down what it is told, and answers when the test says so."""

    last: ClassVar[Noting]

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.told: list[Any] = []
        self.responses: list[Response] = []
        type(self).last = self

    def configured(self, settings: Settings) -> None:
        self.told.append("configured")

    def heard(self, pcm: bytes, speaking: bool) -> None:
        if self.told[-1:] != ["heard"]:
            self.told.append("heard")

    def committed(self, item: Item) -> None:
        self.told.append(("committed", item.text))

    def respond(self, response: Response) -> None:
        self.responses.append(response)

    def cancelled(self, response: Response) -> None:
        self.told.append(("cancelled", response.id))

    def event(self, event: dict[str, Any]) -> None:
        self.told.append(event["type"])
        self.line.emit({"type": f"{type(self).__name__}.heard"})

    def state(self) -> object:
        return {"from": type(self).__name__}

    def resume(self, state: object, items: Sequence[Item]) -> None:
        self.told.append(("resume", state, [item.text for item in items]))

    def close(self) -> None:
        self.told.append("close")


class First(Noting):
    last: ClassVar[Noting]


class Second(Noting):
    last: ClassVar[Noting]


class Slow(Noting):
    """Is warm when it is let."""

    runs: ClassVar[Literal["loop", "thread"]] = "thread"
    last: ClassVar[Noting]
    let: ClassVar[threading.Event]

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        line.emit({"type": "Slow.early"})

    async def warm(self, settings: Settings, items: Sequence[Item]) -> None:  # type: ignore[override]
        self.told.append(("warm", [item.text for item in items]))
        while not self.let.is_set():  # noqa: ASYNC110  # it is set in another thread
            await asyncio.sleep(0.01)


class NeverMade(Base):
    def __init__(self, line: Line) -> None:
        raise RuntimeError("no such model")


class NeverMadeInThread(NeverMade):
    runs: ClassVar[Literal["loop", "thread"]] = "thread"


class NeverWarm(Base):
    def warm(self, settings: Settings, items: Sequence[Item]) -> None:
        raise RuntimeError("no upstream")


class NeverWarmInThread(NeverWarm):
    runs: ClassVar[Literal["loop", "thread"]] = "thread"


class RefusesState(Noting):
    last: ClassVar[Noting]

    def resume(self, state: object, items: Sequence[Item]) -> None:
        if state is not None:
            raise ValueError("of another version")
        super().resume(state, items)


class OtherRate(Base):
    rate_hz: ClassVar[Literal[8000, 16000, 24000, 48000]] = 16000


class Unknown(Noting):
    """Answers everything it is asked at once."""

    last: ClassVar[Noting]

    def respond(self, response: Response) -> None:
        response.text("at your service")
        response.done()


AGENTS: dict[str, type[Base]] = {
    "echo": echo.Agent,
    "loopback": loopback.Agent,
    "parrot": parrot.Agent,
    "first": First,
    "second": Second,
    "slow": Slow,
    "never-made": NeverMade,
    "never-made-in-thread": NeverMadeInThread,
    "never-warm": NeverWarm,
    "never-warm-in-thread": NeverWarmInThread,
    "refuses-state": RefusesState,
    "other-rate": OtherRate,
    "at-once": Unknown,
}


@pytest.fixture(autouse=True)
def anew() -> None:
    """Nobody has been made, and who is slow to warm waits."""
    Slow.let = threading.Event()
    for kind in AGENTS.values():
        if "last" in vars(kind):
            delattr(kind, "last")


def made(kind: type[Noting]) -> bool:
    """Whether there is one, which has been told something."""
    return hasattr(kind, "last") and bool(kind.last.told)


def says(call: MovingCall, type_: str, **fields: Any) -> None:
    assert call.channel is not None
    call.channel.send(json.dumps({"type": type_, **fields}))


def writes(call: MovingCall, text: str) -> None:
    content = [{"type": "input_text", "text": text}]
    says(call, "conversation.item.create", item={"type": "message", "role": "user", "content": content})


def gained(before: Counter[str]) -> dict[str, int]:
    return dict(Counter(AGENT_HANDOFFS) - before)


def refused(reply: object, code: str) -> str:
    assert isinstance(reply, messages.Refused), reply
    assert reply.code == code
    return reply.message


async def heard_more(call: MovingCall, packets: int = 5) -> None:
    heard = len(call.rtp)
    await until(lambda: len(call.rtp) >= heard + packets)


def unbroken(call: MovingCall) -> None:
    """The caller got every packet, each 20 ms after the one before."""
    assert {(b.sequence - a.sequence) & 0xFFFF for a, b in pairwise(call.rtp)} == {1}
    assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(call.rtp)} == {960}


async def test_another_agent_has_the_call_and_the_client_is_told_its_model() -> None:
    before = Counter(AGENT_HANDOFFS)
    async with a_call_of("first", AGENTS) as (call, desk):
        await call.open_channel()
        writes(call, "hello")
        await until(lambda: of_type(call, "conversation.item.done"))
        old = First.last
        assert await desk.hand_off("second") == messages.HandedOff(agent="second")
        says(call, "a.question")
        await until(lambda: of_type(call, "Second.heard"))
        assert not of_type(call, "First.heard")
        (updated,) = of_type(call, "session.updated")
        assert updated["session"]["model"] == "second"
        assert Second.last.told[:2] == ["configured", ("resume", None, ["hello"])]
        await until(lambda: old.told[-1] == "close")
        assert call.session.kind[0] == call.session.talk.agent_name == "second"
        assert desk.listed(agent="first").sessions == []
        assert desk.listed().sessions == [(call.session.ufrag, "second")]
        assert not of_type(call, "error")
    assert gained(before) == {"taken_over": 1}


async def test_packets_become_a_paced_voice_and_the_other_way_without_a_gap() -> None:
    async with a_call_of("echo", AGENTS) as (call, desk):

        async def echoes() -> None:
            for payload in voice(5):
                heard = len(call.rtp)
                call.speak(payload)
                await until(lambda heard=heard: len(call.rtp) > heard)  # type: ignore[misc]
                assert call.rtp[-1].payload == payload

        await echoes()
        assert await desk.hand_off("loopback") == messages.HandedOff(agent="loopback")
        await heard_more(call)
        for payload in voice(20):
            call.speak(payload)
            await heard_more(call, 1)
        await until(lambda: call.session.stream.heard_ms >= 100)
        assert await desk.hand_off("parrot") == messages.HandedOff(agent="parrot")
        await heard_more(call)
        assert await desk.hand_off("echo") == messages.HandedOff(agent="echo")
        await echoes()
        unbroken(call)
        assert call.session.talk.agent_type is echo.Agent


async def test_what_is_said_while_the_successor_warms_goes_to_both_and_what_it_says_waits() -> None:
    async with a_call_of("first", AGENTS) as (call, desk):
        await call.open_channel()
        writes(call, "before")
        await until(lambda: of_type(call, "conversation.item.done"))
        desk.ask("slow")
        await until(lambda: made(Slow) and ("warm", ["before"]) in Slow.last.told)
        writes(call, "meanwhile")
        says(call, "a.question")
        await until(lambda: of_type(call, "First.heard"))
        assert ("committed", "meanwhile") in First.last.told
        assert not of_type(call, "Slow.early")
        Slow.let.set()
        await eventually(lambda: desk.said)
        await until(lambda: of_type(call, "Slow.early"))
        types = [event["type"] for event in call.events]
        assert types.index("session.updated") < types.index("Slow.early")
        await until(lambda: ("committed", "meanwhile") in Slow.last.told)
        assert "a.question" not in Slow.last.told


async def test_a_response_in_progress_is_finished_by_whom_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoffs, "_SPEAKS_S", 0.1)
    async with a_call_of("first", AGENTS) as (call, desk):
        await call.open_channel()
        says(call, "response.create")
        await until(lambda: First.last.responses)
        (response,) = First.last.responses
        response.text("the first half, ")
        assert await desk.hand_off("at-once") == messages.HandedOff(agent="at-once")
        writes(call, "and now?")
        await until(lambda: ("committed", "and now?") in Unknown.last.told)
        with pytest.raises(RequestError, match="under way"):
            desk.ask("second")
        First.last.line.emit({"type": "of.nobody"})
        response.text("and the second")
        response.done()
        await until(lambda: of_type(call, "response.done"))
        (done,) = of_type(call, "response.done")
        assert done["response"]["status"] == "completed"
        assert done["response"]["output"][0]["content"][0]["text"] == "the first half, and the second"
        await until(lambda: First.last.told[-1] == "close")
        says(call, "response.create")
        await until(lambda: len(of_type(call, "response.done")) == 2)
        assert of_type(call, "response.done")[1]["response"]["output"][0]["content"][0]["text"] == "at your service"
        assert not of_type(call, "of.nobody")
        await heard_more(call)
        unbroken(call)


async def test_an_old_response_is_cancelled_where_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoffs, "_SPEAKS_S", 0.1)
    async with a_call_of("first", AGENTS) as (call, desk):
        await call.open_channel()
        says(call, "response.create")
        await until(lambda: First.last.responses)
        assert await desk.hand_off("second") == messages.HandedOff(agent="second")
        says(call, "response.cancel")
        await until(lambda: of_type(call, "response.done"))
        (done,) = of_type(call, "response.done")
        assert done["response"]["status"] == "cancelled"
        assert ("cancelled", First.last.responses[0].id) in First.last.told
        assert not [told for told in Second.last.told if told[0] == "cancelled"]


async def test_a_response_that_takes_too_long_ends_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoffs, "_SPEAKS_S", 0.0)
    monkeypatch.setattr(handoffs, "_FINISHES_S", 0.0)
    async with a_call_of("first", AGENTS) as (call, desk):
        await call.open_channel()
        says(call, "response.create")
        await until(lambda: First.last.responses)
        First.last.responses[0].text("for ever ")
        assert await desk.hand_off("second") == messages.HandedOff(agent="second")
        await until(lambda: of_type(call, "response.done"))
        assert of_type(call, "response.done")[0]["response"]["status"] == "incomplete"
        await until(lambda: First.last.told[-1] == "close")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("never-made", "no such model"),
        ("never-made-in-thread", "no such model"),
        ("never-warm", "no upstream"),
        ("never-warm-in-thread", "no upstream"),
    ],
)
async def test_one_that_cannot_take_over_leaves_the_call_to_the_present_one(name: str, why: str) -> None:
    before = Counter(AGENT_HANDOFFS)
    async with a_call_of("first", AGENTS) as (call, desk):
        await call.open_channel()
        assert why in refused(await desk.hand_off(name), "handoff_failed")
        says(call, "a.question")
        await until(lambda: of_type(call, "First.heard"))
        assert not of_type(call, "session.updated")
        assert not call.session.ended
        # And the next one may try.
        await eventually(lambda: not desk.handoffs._under_way)
        assert await desk.hand_off("second") == messages.HandedOff(agent="second")
    assert gained(before) == {"failed": 1, "taken_over": 1}


async def test_one_that_is_never_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Counter(AGENT_HANDOFFS)
    monkeypatch.setattr(handoffs, "_WARM_S", 0.2)
    async with a_call_of("first", AGENTS) as (call, desk):
        assert "slow" in refused(await desk.hand_off("slow"), "handoff_timeout")
        await eventually(lambda: Slow.last.told[-1] == "close")
        assert call.session.talk.agent_name == "first"
    assert gained(before) == {"timed_out": 1}


async def test_one_that_fails_after_it_is_warm_and_before_its_turn_leaves_the_call_to_the_present_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Falls(Slow):
        last: ClassVar[Noting]

        async def warm(self, settings: Settings, items: Sequence[Item]) -> None:  # type: ignore[override]
            async def fall() -> None:
                await asyncio.sleep(0.1)
                for _ in range(100_000):
                    self.line.emit({})

            self.task = asyncio.get_running_loop().create_task(fall())

    monkeypatch.setattr(handoffs, "_SPEAKS_S", 600.0)
    async with a_call_of("first", {**AGENTS, "falls": Falls}) as (call, desk):
        await call.open_channel()
        says(call, "response.create")  # which nobody ends: it is never quiet
        await until(lambda: First.last.responses)
        assert "more than can be passed on" in refused(await desk.hand_off("falls"), "handoff_failed")
        assert call.session.talk.agent_name == "first"


async def test_packets_wait_for_quiet_and_then_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Counter(AGENT_HANDOFFS)
    monkeypatch.setattr(handoffs, "_SPEAKS_S", 0.1)
    async with a_call_of("first", AGENTS) as (call, desk):
        await call.open_channel()
        says(call, "response.create")
        await until(lambda: First.last.responses)
        refused(await desk.hand_off("echo"), "never_quiet")
        First.last.responses[0].done()
        await until(lambda: of_type(call, "response.done"))
        assert await desk.hand_off("echo") == messages.HandedOff(agent="echo")
    assert gained(before) == {"never_quiet": 1, "taken_over": 1}


async def test_a_call_that_ends_while_the_successor_warms_is_told() -> None:
    before = Counter(AGENT_HANDOFFS)
    async with a_call_of("first", AGENTS) as (call, desk):
        desk.ask("slow")
        await eventually(lambda: made(Slow))
        call.session.end("hangup")
        await eventually(lambda: desk.said)
        refused(desk.said[0], "call_id_not_found")
        await eventually(lambda: Slow.last.told[-1] == "close")
    assert gained(before) == {"call_ended": 1}


async def test_a_call_that_leaves_while_the_successor_warms_is_asked_for_where_it_is() -> None:
    before = Counter(AGENT_HANDOFFS)
    async with a_call_of("first", AGENTS) as (call, desk):
        desk.ask("slow")
        await eventually(lambda: made(Slow))
        await call.move()
        await eventually(lambda: desk.again)
        assert desk.again == [messages.Handoff(ufrag=call.session.ufrag, agent="slow")]
        assert desk.said == []
        await eventually(lambda: Slow.last.told[-1] == "close")
        assert call.session.talk.agent_name == "first"
        await heard_more(call)
    assert gained(before) == {"moved": 1}


async def test_nobody_takes_over_while_a_call_is_about_to_leave() -> None:
    async with a_call_of("first", AGENTS) as (call, desk):
        await call.session.hold()
        desk.ask("second")
        await eventually(lambda: made(Second) and Second.last.told[-1][0] == "resume")
        await heard_more(call)
        assert desk.said == []
        call.session.stay()
        await eventually(lambda: desk.said == [messages.HandedOff(agent="second")])


async def test_the_new_agent_is_the_one_that_goes_on_elsewhere_and_after_a_crash() -> None:
    async with a_call_of("echo", AGENTS) as (call, desk):
        assert await desk.hand_off("first") == messages.HandedOff(agent="first")
        await eventually(lambda: not desk.handoffs._under_way)
        assert call.session.snapshot().talk.agent == "first"
        call.agent = First
        await call.move()
        assert First.last.told[1] == ("resume", {"from": "First"}, [])
        assert call.session.talk.agent_name == "first"
        assert call.session.talk.protocol.session["model"] == "first"
        assert await desk.hand_off("parrot") == messages.HandedOff(agent="parrot")
        await heard_more(call)
        unbroken(call)
        call.numbers()


async def test_one_of_the_same_kind_gets_the_state_and_another_does_not() -> None:
    async with a_call_of("first", {**AGENTS, "first-again": First}) as (_, desk):
        old = First.last
        assert await desk.hand_off("first-again") == messages.HandedOff(agent="first-again")
        assert First.last is not old
        assert First.last.told[1] == ("resume", {"from": "First"}, [])
        await eventually(lambda: not desk.handoffs._under_way)
        assert await desk.hand_off("second") == messages.HandedOff(agent="second")
        assert Second.last.told[1] == ("resume", None, [])


async def test_one_that_refuses_the_state_gets_the_items() -> None:
    async with a_call_of("refuses-state", AGENTS) as (_, desk):
        assert await desk.hand_off("refuses-state") == messages.HandedOff(agent="refuses-state")
        assert RefusesState.last.told[1] == ("resume", None, [])


async def test_what_cannot_be_had_is_refused_at_once() -> None:
    before = Counter(AGENT_HANDOFFS)
    async with a_call_of("first", AGENTS) as (call, desk):

        def code(agent: str, **more: str) -> str:
            with pytest.raises(RequestError) as refusal:
                desk.ask(agent, **more)
            return refusal.value.code

        assert code("nobody") == "model_not_found"
        assert code("other-rate") == "model_unfit"
        assert code("second", ufrag="other") == "call_id_not_found"
        assert code("second", owner="somebody") == "call_id_not_found"
        desk.full = True
        assert code("second") == "full"
        desk.full = False
        desk.ask("slow")
        assert code("second") == "handoff_under_way"
        Slow.let.set()
        await eventually(lambda: desk.said)
        assert call.session.talk.agent_name == "slow"
    assert gained(before) == {"refused": 4, "taken_over": 1}


async def test_the_hand_offs_of_a_process_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoffs, "_MOST", 1)
    async with a_call_of("first", AGENTS) as (_, desk), a_call_of("first", AGENTS) as (other, __):
        desk.ask("slow")
        other_desk = Desk(lambda: other.session, AGENTS)
        other_desk.handoffs._under_way = desk.handoffs._under_way
        with pytest.raises(RequestError, match="1 hand-offs"):
            other_desk.ask("second")
        Slow.let.set()
        await eventually(lambda: desk.said)
