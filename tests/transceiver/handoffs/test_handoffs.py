"""Hand-offs of agents under a live call: who has it, what the successor knows, and what the caller hears."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import pytest
from handing_off import (
    AGENTS,
    First,
    Noting,
    RefusesState,
    Second,
    Slow,
    Unknown,
    a_call_of,
    gained,
    heard_more,
    made,
    says,
    unbroken,
    writes,
)
from session_run import of_type, until, voice
from waiting import eventually

from transceiver.agents import Response, echo
from transceiver.counters import AGENT_HANDOFFS
from transceiver.handoffs import desk as handoffs
from transceiver.refusing import RequestError
from wire.handoffs import HandedOff, Handoff


async def test_another_agent_has_the_call_and_the_client_is_told_its_model() -> None:
    before = Counter(AGENT_HANDOFFS)
    async with a_call_of("first") as (call, desk):
        await call.open_channel()
        writes(call, "hello")
        await until(lambda: of_type(call, "conversation.item.done"))
        old = First.last
        assert await desk.hand_off("second") == HandedOff(agent="second")
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
    async with a_call_of("echo") as (call, desk):

        async def echoes() -> None:
            for payload in voice(5):
                heard = len(call.rtp)
                call.speak(payload)
                await until(lambda heard=heard: len(call.rtp) > heard)  # type: ignore[misc]
                assert call.rtp[-1].payload == payload

        await echoes()
        assert await desk.hand_off("loopback") == HandedOff(agent="loopback")
        await heard_more(call)
        for payload in voice(20):
            call.speak(payload)
            await heard_more(call, 1)
        await until(lambda: call.session.stream.heard_ms >= 100)
        assert await desk.hand_off("parrot") == HandedOff(agent="parrot")
        await heard_more(call)
        assert await desk.hand_off("echo") == HandedOff(agent="echo")
        await echoes()
        unbroken(call)
        assert call.session.talk.agent_type is echo.Agent


async def test_what_is_said_while_the_successor_warms_goes_to_both_and_what_it_says_waits() -> None:
    async with a_call_of("first") as (call, desk):
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
    async with a_call_of("first") as (call, desk):
        await call.open_channel()
        says(call, "response.create")
        await until(lambda: First.last.responses)
        (response,) = First.last.responses
        response.text("the first half, ")
        assert await desk.hand_off("at-once") == HandedOff(agent="at-once")
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
    async with a_call_of("first") as (call, desk):
        await call.open_channel()
        says(call, "response.create")
        await until(lambda: First.last.responses)
        assert await desk.hand_off("second") == HandedOff(agent="second")
        says(call, "response.cancel")
        await until(lambda: of_type(call, "response.done"))
        (done,) = of_type(call, "response.done")
        assert done["response"]["status"] == "cancelled"
        assert ("cancelled", First.last.responses[0].id) in First.last.told
        assert not [told for told in Second.last.told if told[0] == "cancelled"]


async def test_a_response_that_takes_too_long_ends_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoffs, "_SPEAKS_S", 0.0)
    monkeypatch.setattr(handoffs, "_FINISHES_S", 0.0)
    async with a_call_of("first") as (call, desk):
        await call.open_channel()
        says(call, "response.create")
        await until(lambda: First.last.responses)
        First.last.responses[0].text("for ever ")
        assert await desk.hand_off("second") == HandedOff(agent="second")
        await until(lambda: of_type(call, "response.done"))
        assert of_type(call, "response.done")[0]["response"]["status"] == "incomplete"
        await until(lambda: First.last.told[-1] == "close")


async def test_a_call_that_leaves_while_the_successor_warms_is_asked_for_where_it_is() -> None:
    before = Counter(AGENT_HANDOFFS)
    async with a_call_of("first") as (call, desk):
        desk.ask("slow")
        await eventually(lambda: made(Slow))
        await call.move()
        await eventually(lambda: desk.again)
        assert desk.again == [Handoff(ufrag=call.session.ufrag, agent="slow")]
        assert desk.said == []
        await eventually(lambda: Slow.last.told[-1] == "close")
        assert call.session.talk.agent_name == "first"
        await heard_more(call)
    assert gained(before) == {"moved": 1}


async def test_nobody_takes_over_while_a_call_is_about_to_leave() -> None:
    async with a_call_of("first") as (call, desk):
        await call.session.hold()
        desk.ask("second")
        await eventually(lambda: made(Second) and Second.last.told[-1][0] == "resume")
        await heard_more(call)
        assert desk.said == []
        call.session.stay()
        await eventually(lambda: desk.said == [HandedOff(agent="second")])


async def test_the_new_agent_is_the_one_that_goes_on_elsewhere_and_after_a_crash() -> None:
    async with a_call_of("echo") as (call, desk):
        assert await desk.hand_off("first") == HandedOff(agent="first")
        await eventually(lambda: not desk.handoffs._under_way)
        assert call.session.snapshot().talk.agent == "first"
        call.agent = First
        await call.move()
        assert First.last.told[1] == ("resume", {"from": "First"}, [])
        assert call.session.talk.agent_name == "first"
        assert call.session.talk.protocol.session["model"] == "first"
        assert await desk.hand_off("parrot") == HandedOff(agent="parrot")
        await heard_more(call)
        unbroken(call)
        call.numbers()


async def test_one_of_the_same_kind_gets_the_state_and_another_does_not() -> None:
    async with a_call_of("first", {**AGENTS, "first-again": First}) as (_, desk):
        old = First.last
        assert await desk.hand_off("first-again") == HandedOff(agent="first-again")
        assert First.last is not old
        assert First.last.told[1] == ("resume", {"from": "First"}, [])
        await eventually(lambda: not desk.handoffs._under_way)
        assert await desk.hand_off("second") == HandedOff(agent="second")
        assert Second.last.told[1] == ("resume", None, [])


async def test_one_that_refuses_the_state_gets_the_items() -> None:
    async with a_call_of("refuses-state") as (_, desk):
        assert await desk.hand_off("refuses-state") == HandedOff(agent="refuses-state")
        assert RefusesState.last.told[1] == ("resume", None, [])


async def test_a_call_moves_while_the_agent_before_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoffs, "_SPEAKS_S", 0.0)
    async with a_call_of("first") as (call, desk):
        await call.open_channel()
        says(call, "response.create")
        await until(lambda: First.last.responses)
        First.last.responses[0].text("as far as it came")
        assert await desk.hand_off("second") == HandedOff(agent="second")
        call.agent = Second
        await call.move()
        First.last.responses[0].text(" and not further")
        await until(lambda: of_type(call, "response.done"))
        (done,) = of_type(call, "response.done")
        assert done["response"]["status"] == "incomplete"
        assert done["response"]["output"][0]["content"][0]["text"] == "as far as it came"
        await until(lambda: First.last.told[-1] == "close")
        assert call.session.talk.agent_name == "second"
        await heard_more(call)
        unbroken(call)


async def test_the_output_of_a_function_call_goes_to_whoever_has_the_call_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoffs, "_SPEAKS_S", 0.0)
    async with a_call_of("first") as (call, desk):
        await call.open_channel()
        says(call, "response.create")
        await until(lambda: First.last.responses)
        First.last.responses[0].call("dial", "{}", "call_1")
        First.last.responses[0].done()
        await until(lambda: of_type(call, "response.done"))
        assert await desk.hand_off("second") == HandedOff(agent="second")
        output = {"type": "function_call_output", "call_id": "call_1", "output": "rings"}
        says(call, "conversation.item.create", item=output)
        says(call, "response.create")
        await until(lambda: Second.last.responses)
        asked = [(item.kind, item.call_id) for item in Second.last.responses[0].items]
        assert asked == [("function_call", "call_1"), ("function_call_output", "call_1")]
        assert not of_type(call, "error")


async def test_an_agent_that_fails_when_it_is_replaced_costs_its_response_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Falls(Noting):
        last: ClassVar[Noting]

        def cancelled(self, response: Response) -> None:
            raise RuntimeError("its own trouble")

    monkeypatch.setattr(handoffs, "_SPEAKS_S", 0.0)
    async with a_call_of("falls", {**AGENTS, "falls": Falls}) as (call, desk):
        await call.open_channel()
        for _ in range(2):
            says(call, "response.create", response={"conversation": "none"})
        await until(lambda: len(Falls.last.responses) == 2)
        assert await desk.hand_off("second") == HandedOff(agent="second")
        says(call, "response.cancel", response_id=Falls.last.responses[0].id)
        await until(lambda: len(of_type(call, "response.done")) == 2)
        statuses = [done["response"]["status"] for done in of_type(call, "response.done")]
        assert statuses == ["cancelled", "incomplete"]
        await eventually(lambda: not desk.handoffs._under_way)
        says(call, "a.question")
        await until(lambda: of_type(call, "Second.heard"))
        assert not call.session.ended
