"""The placing of calls while transceivers are silent, full or away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from signaling_edge import CALLS, SDP, two_fakes


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


async def test_what_is_full_is_asked_and_passed_by(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, full, other):
        full.refusal = ("full", "no")
        assert [(await edge.place("v=0"))[0] for _ in range(4)] == [201] * 4
        assert (full.sessions, other.sessions) == (0, 4)
