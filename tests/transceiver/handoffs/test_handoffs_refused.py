"""Hand-offs that come to nothing: the call stays with the agent that it has, and whoever asked is told why."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import pytest
from handing_off import AGENTS, Desk, First, Noting, Slow, a_call_of, gained, made, refused, says
from session_run import of_type, until
from waiting import eventually

from transceiver.agents import Item, Settings
from transceiver.counters import AGENT_HANDOFFS
from transceiver.handoffs import desk as handoffs
from transceiver.refusing import RequestError
from wire.handoffs import HandedOff


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
    async with a_call_of("first") as (call, desk):
        await call.open_channel()
        assert why in refused(await desk.hand_off(name), "handoff_failed")
        says(call, "a.question")
        await until(lambda: of_type(call, "First.heard"))
        assert not of_type(call, "session.updated")
        assert not call.session.ended
        # And the next one may try.
        await eventually(lambda: not desk.handoffs._under_way)
        assert await desk.hand_off("second") == HandedOff(agent="second")
    assert gained(before) == {"failed": 1, "taken_over": 1}


async def test_one_that_is_never_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Counter(AGENT_HANDOFFS)
    monkeypatch.setattr(handoffs, "_WARM_S", 0.2)
    async with a_call_of("first") as (call, desk):
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
    async with a_call_of("first") as (call, desk):
        await call.open_channel()
        says(call, "response.create")
        await until(lambda: First.last.responses)
        refused(await desk.hand_off("echo"), "never_quiet")
        First.last.responses[0].done()
        await until(lambda: of_type(call, "response.done"))
        assert await desk.hand_off("echo") == HandedOff(agent="echo")
    assert gained(before) == {"never_quiet": 1, "taken_over": 1}


async def test_a_call_that_ends_while_the_successor_warms_is_told() -> None:
    before = Counter(AGENT_HANDOFFS)
    async with a_call_of("first") as (call, desk):
        desk.ask("slow")
        await eventually(lambda: made(Slow))
        call.session.end("hangup")
        await eventually(lambda: desk.said)
        refused(desk.said[0], "call_id_not_found")
        await eventually(lambda: Slow.last.told[-1] == "close")
    assert gained(before) == {"call_ended": 1}


async def test_what_cannot_be_had_is_refused_at_once() -> None:
    before = Counter(AGENT_HANDOFFS)
    async with a_call_of("first") as (call, desk):

        def code(agent: str, **more: str) -> str:
            with pytest.raises(RequestError) as refusal:
                desk.ask(agent, **more)
            return refusal.value.code

        assert code("nobody") == "model_not_found"
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
    assert gained(before) == {"refused": 3, "taken_over": 1}


async def test_the_hand_offs_of_a_process_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoffs, "_MOST", 1)
    async with a_call_of("first") as (_, desk), a_call_of("first") as (other, __):
        desk.ask("slow")
        other_desk = Desk(lambda: other.session, AGENTS)
        other_desk.handoffs._under_way = desk.handoffs._under_way
        with pytest.raises(RequestError, match="1 hand-offs"):
            other_desk.ask("second")
        Slow.let.set()
        await eventually(lambda: desk.said)
