"""Calls beyond what a transceiver could serve in time: the next is asked, and where there is none it is 503 at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_run import a_real_edge, offer
from signaling_edge import CALLS, SDP, two_fakes
from waiting import eventually

A_THIRD = 0.3  # of a core, which a call is thought to cost: two fit


async def test_a_transceiver_without_room_is_503_however_many_sessions_it_may_hold(tmp_path: Path) -> None:
    async with a_real_edge(tmp_path, 1) as edge:
        small = edge.start(1, prior=A_THIRD, max_sessions=200)
        await edge.ready(1)
        assert [(await edge.place(offer()))[0] for _ in range(2)] == [201, 201]
        assert small.room["parrot"] == 0
        await eventually(lambda: {model.room for model in small.report().models} == {0})
        for _ in range(4):
            status, headers, error = await edge.error("POST", CALLS, data=offer(), headers=SDP)
            assert (status, error["code"]) == (503, "full")
            assert int(headers["Retry-After"]) > 0
        assert small.sessions == 2


async def test_who_asks_a_full_fleet_again_is_refused_without_asking_it_until_a_call_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.placement.fullness.FRESH_S", 3600.0)
    async with two_fakes(tmp_path) as (edge, *both):
        assert (await edge.place("v=0"))[0] == 201
        for each in both:
            each.refusal = ("full", "it holds its calls")
        answers = [await edge.error("POST", CALLS, data="v=0", headers=SDP) for _ in range(5)]
        assert [(status, error["code"]) for status, _, error in answers] == [(503, "full")] * 5
        assert all(int(headers["Retry-After"]) > 0 for _, headers, _ in answers)
        assert sum(each.counts["session.offer"] for each in both) == 1 + 2
        for each in both:
            each.refusal = None
        assert (await edge.place("v=0"))[0] == 503, "nobody has told it of a place"
        edge.ledger.ended(next(iter(edge.ledger.whereabouts)))
        assert (await edge.place("v=0"))[0] == 201


async def test_the_next_transceiver_is_asked_where_one_has_no_room(tmp_path: Path) -> None:
    async with a_real_edge(tmp_path, 1, 2) as edge:
        small, large = edge.start(1, prior=A_THIRD), edge.start(2)
        await edge.ready(1, 2)
        assert [(await edge.place(offer()))[0] for _ in range(10)] == [201] * 10
        assert small.sessions <= 2
        assert small.sessions + large.sessions == 10


async def test_a_fixed_capacity_lets_in_what_is_configured(tmp_path: Path) -> None:
    async with a_real_edge(tmp_path, 1) as edge:
        small = edge.start(1, prior=A_THIRD, max_sessions=4, capacity="fixed")
        await edge.ready(1)
        assert [(await edge.place(offer()))[0] for _ in range(4)] == [201] * 4
        assert small.room["parrot"] == 0
