"""The placing of calls while transceivers are silent, full or away; and calls whose transceiver is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from signaling_edge import CALLS, SDP, TOKEN, Edge, FakeTransceiver, two_fakes
from waiting import eventually

from edge.signaling.health import give_up, lost_calls


async def test_while_one_transceiver_stands_still_every_call_is_placed_at_the_other(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, still, other):
        still.mute = {"health", "session.offer"}
        for _ in range(2):
            placed = await asyncio.gather(*(edge.place("v=0") for _ in range(20)))
            assert [status for status, _, _ in placed] == [201] * 20
        assert other.sessions == 40
        assert "session.offer" not in still.said


async def test_calls_that_are_placed_at_once_take_turns(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, one, other):
        placed = await asyncio.gather(*(edge.place("v=0") for _ in range(20)))
        assert [status for status, _, _ in placed] == [201] * 20
        assert (one.sessions, other.sessions) == (10, 10)


async def test_an_offer_that_silenced_one_transceiver_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.links.transceivers._PATIENCE_S", 1.0)
    async with two_fakes(tmp_path) as (edge, one, other):
        one.mute = other.mute = {"session.offer"}
        for i in range(1, 4):
            status, headers, error = await edge.error("POST", CALLS, data="v=0", headers=SDP)
            assert (status, error["code"]) == (503, "transceiver_away")
            assert int(headers["Retry-After"]) > 0
            assert len(one.said.get("session.offer", [])) + len(other.said.get("session.offer", [])) == i


async def test_a_transceiver_that_was_silent_is_passed_over_until_it_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.links.transceivers._PATIENCE_S", 1.0)
    async with two_fakes(tmp_path) as (edge, one, _):
        one.mute = {"session.offer"}
        assert sorted([(await edge.place("v=0"))[0] for _ in range(2)]) == [201, 503]
        one.mute = {"session.offer", "health"}
        assert [(await edge.place("v=0"))[0] for _ in range(4)] == [201] * 4
        assert len(one.said["session.offer"]) == 1
        one.mute = set()
        before = one.sessions
        async with asyncio.timeout(30):
            while one.sessions == before:
                assert (await edge.place("v=0"))[0] == 201
                await asyncio.sleep(0.05)


class Once(set[str]):
    """A set from which an item goes when it is looked for."""

    def __contains__(self, item: object) -> bool:
        found = super().__contains__(item)
        self.discard(str(item))
        return found


async def test_where_nobody_else_is_left_one_that_was_not_heard_is_asked_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have stood still for a moment."""
    monkeypatch.setattr("edge.signaling.placing._PULSE_S", 1.0)
    async with two_fakes(tmp_path) as (edge, one, other):
        one.mute, other.mute = Once({"health"}), {"health"}
        assert (await edge.place("v=0"))[0] == 201
        assert (one.sessions, other.sessions) == (1, 0)
        assert not one.mute


async def test_what_is_full_is_asked_and_passed_by(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, full, other):
        full.refusal = ("full", "no")
        assert [(await edge.place("v=0"))[0] for _ in range(4)] == [201] * 4
        assert (full.sessions, other.sessions) == (0, 4)


async def who_was_asked(one: FakeTransceiver, other: FakeTransceiver) -> tuple[FakeTransceiver, FakeTransceiver]:
    """Waits until one of the two has an offer. Returns which, and the other."""
    await eventually(lambda: "session.offer" in {**one.said, **other.said})
    return (one, other) if "session.offer" in one.said else (other, one)


async def test_an_offer_whose_transceiver_dies_is_taken_by_another(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, *both):
        for each in both:
            each.mute = {"session.offer"}
        placing = asyncio.create_task(edge.place("v=0"))
        dies, lives = await who_was_asked(*both)
        lives.mute = set()
        await dies.start_again()
        status, _, _ = await placing
        assert (status, lives.sessions) == (201, 1)


async def test_an_offer_of_which_two_die_is_passed_on_no_further(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, *both):
        for each in both:
            each.mute = {"session.offer"}
        placing = asyncio.create_task(edge.error("POST", CALLS, data="v=0", headers=SDP))
        first, second = await who_was_asked(*both)
        await first.start_again()
        await eventually(lambda: "session.offer" in second.said)
        first.mute = set()
        await edge.ready(1, 2)
        await second.start_again()
        status, _, error = await placing
        assert (status, error["code"]) == (503, "transceiver_away")
        assert (first.sessions, len(first.said["session.offer"])) == (0, 1)


async def hang_up(edge: Edge, location: str) -> int:
    async with edge.http.post(f"{edge.url}{location}/hangup", headers=TOKEN) as response:
        return response.status


async def test_calls_are_over_whose_transceiver_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_fakes(tmp_path) as (edge, *both):
        placed = [str((await edge.place("v=0"))[1]["Location"]) for _ in range(4)]
        (of_one, of_other), lost = (list(each.placed_by) for each in both), lost_calls()
        assert (len(of_one), len(of_other)) == (2, 2)
        giving_up = asyncio.create_task(give_up(edge.ledger, edge.links, lost))
        try:
            await both[0].close()
            await edge.ready(2)
            its_own = [call for call in placed if await hang_up(edge, call) == 503]
            assert len(its_own) == 2, "it may come back"
            monkeypatch.setattr("edge.links.transceivers._LOST_AFTER_S", 0.0)
            await eventually(lambda: lost["transceiver_gone"] == 2)
            assert len(edge.ledger) == 0
            assert [await hang_up(edge, call) for call in its_own] == [404, 404]
            await both[0].start_again()
            await edge.ready(1, 2)
            assert [await hang_up(edge, call) for call in its_own] == [200, 200], "it had only been out of reach"
            assert lost["transceiver_gone"] == 2
        finally:
            giving_up.cancel()
