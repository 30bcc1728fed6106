"""The placing of calls by what transceivers report."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fleets import a_report
from prometheus_client import CollectorRegistry
from signaling_edge import CALLS, SDP, SECRETS, TOKEN, Edge, a_fake, two_fakes

from edge.signaling.explaining import explanation

_COUNT = itertools.count(1)


def report(edge: Edge, number: int, round_trip_s: float = 0.001, **said: Any) -> None:
    """Has the edge hear a new report."""
    nth = next(_COUNT)
    made = msgspec.structs.replace(a_report(number, **said), number=nth)
    assert edge.transceivers.report(made, time.monotonic() + nth * 1e-9, round_trip_s)


def outcomes(edge: Edge) -> dict[str, int]:
    registry = CollectorRegistry()
    for collector in edge.placing.metrics:
        registry.register(collector)
    samples = (sample for family in registry.collect() for sample in family.samples)
    return {s.labels["outcome"]: int(s.value) for s in samples if s.name == "firsthop_placements_total" and s.value}


async def placed(edge: Edge, calls: int, query: str = "?model=parrot") -> list[int]:
    return [(await edge.place("v=0", query=query))[0] for _ in range(calls)]


async def test_calls_go_where_they_are_answered_soonest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with two_fakes(tmp_path) as (edge, near, far):
        report(edge, 1, latency_ms=200)
        report(edge, 2, latency_ms=1000)
        assert await placed(edge, 6) == [201] * 6
        assert (near.sessions, far.sessions) == (6, 0)
        monkeypatch.setattr("edge.placement.placer._AFRESH_S", -1.0)
        report(edge, 1, latency_ms=3000)
        assert (await edge.place("v=0", query="?model=parrot"))[0] == 201
        assert (near.sessions, far.sessions) == (6, 1)
        assert outcomes(edge) == {"placed": 7}


async def test_one_that_drains_gets_no_call_even_where_it_is_the_last(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, draining, other):
        report(edge, 1, draining=True)
        report(edge, 2)
        assert await placed(edge, 4) == [201] * 4
        assert (draining.sessions, other.sessions) == (0, 4)
        report(edge, 2, draining=True)
        status, headers, error = await edge.error("POST", CALLS + "?model=parrot", data="v=0", headers=SDP)
        assert (status, error["code"]) == (503, "no_transceiver")
        assert int(headers["Retry-After"]) > 0
        assert draining.sessions == 0


async def test_a_model_that_nobody_has_is_not_found_and_those_there_are_are_named(tmp_path: Path) -> None:
    keys = "correct horse models=parrot,whisper,secret\nbattery staple models=whisper\n"
    async with two_fakes(tmp_path, api_keys_text=keys) as (edge, one, two):
        report(edge, 1, models=("parrot", "theirs"))
        assert await placed(edge, 2, "?model=whisper") == [201] * 2  # one of them has not said what it has
        report(edge, 2, models=("echo",))
        for path in (CALLS + "?model=whisper", CALLS + "?model=secret"):
            status, _, error = await edge.error("POST", path, data="v=0", headers=SDP)
            assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
            assert error["message"].endswith("there is parrot")
        other = {**SDP, "Authorization": "Bearer battery staple"}
        _, _, error = await edge.error("POST", CALLS + "?model=whisper", data="v=0", headers=other)
        assert "parrot" not in error["message"]
        wish = {"session": {"type": "realtime", "model": "whisper"}}
        status, _, error = await edge.error("POST", SECRETS, json=wish, headers=TOKEN)
        assert (status, error["param"]) == (404, "session.model")
        assert one.sessions + two.sessions == 2


async def test_when_all_are_full_the_caller_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, one, other):
        for fake in (one, other):
            report(edge, fake.number, sessions=50, room=0)
            fake.refusal = ("full", "no")
        status, headers, error = await edge.error("POST", CALLS + "?model=parrot", data="v=0", headers=SDP)
        assert (status, error["code"]) == (503, "full")
        assert 2 <= int(headers["Retry-After"]) <= 30
        assert outcomes(edge) == {"full": 1}


async def test_one_that_said_it_was_full_is_asked_before_a_call_is_refused(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, one, other):
        report(edge, 1, sessions=50, room=0)  # and a call has ended since
        report(edge, 2, sessions=10, room=40)
        other.refusal = ("full", "no")
        assert await placed(edge, 1) == [201]
        assert one.sessions == 1
        assert outcomes(edge) == {"placed_after_retry": 1}
        assert await placed(edge, 1) == [201]
        assert len(other.said["session.offer"]) == 1  # it refused, and has not reported again


async def test_reports_and_none_share_the_calls(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, old, new):
        report(edge, 2)
        assert await placed(edge, 60) == [201] * 60
        assert old.sessions > 10
        assert new.sessions > 10


async def test_one_that_stands_still_harms_no_call_whatever_it_reported(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, still, other):
        report(edge, 1, latency_ms=100)
        report(edge, 2, latency_ms=1000)
        still.mute = {"health", "session.offer"}
        assert await placed(edge, 4) == [201] * 4
        assert other.sessions == 4
        assert "session.offer" not in still.said


async def test_calls_stay_in_the_regions_that_the_configuration_allows(tmp_path: Path) -> None:
    async with two_fakes(tmp_path, regions=("eu",)) as (edge, abroad, home):
        report(edge, 1, latency_ms=100, region="us")
        report(edge, 2, latency_ms=1000, region="eu")
        assert await placed(edge, 4) == [201] * 4
        assert (abroad.sessions, home.sessions) == (0, 4)
        home.refusal = ("full", "no")
        assert await placed(edge, 1) == [503]
        assert abroad.sessions == 0


async def test_a_session_without_media_is_placed_alike(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, near, far):
        report(edge, 1, latency_ms=100)
        report(edge, 2, latency_ms=1000)
        for _ in range(4):
            async with edge.http.ws_connect(edge.url + "/v1/realtime?model=parrot", headers=TOKEN) as socket:
                await socket.receive(timeout=30)
        assert (near.counts["session.open"], far.counts["session.open"]) == (4, 0)


@pytest.mark.parametrize("policy", ["latency", "spread", "pack"])
async def test_every_policy_places(tmp_path: Path, policy: str) -> None:
    async with two_fakes(tmp_path, placement=policy) as (edge, one, other):
        report(edge, 1, sessions=10, room=40)
        report(edge, 2, sessions=30, room=20)
        assert await placed(edge, 3) == [201] * 3
        assert {"spread": (3, 0), "pack": (0, 3)}.get(policy, (3, 0)) == (one.sessions, other.sessions)


async def test_what_would_become_of_a_call_is_explained(tmp_path: Path) -> None:
    async with a_fake(tmp_path) as (edge, _):
        assert edge.placing.explain("parrot").silent == [1]
        report(edge, 1, sessions=12, room=38, region="eu")
        found = edge.placing.explain("parrot")
        assert (found.policy, found.silent, found.verdicts) == ("latency", [], {"good": 1})
        assert (found.candidates[0].id, found.candidates[0].sessions) == (1, 12)
        assert edge.placing.explain("whisper").models == ["parrot"]


async def test_transceivers_of_one_host_share_the_way_there(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, one, other):
        report(edge, 1, 0.5)  # it was busy when it was first asked
        report(edge, 2, 0.01)
        ways = [candidate.network_ms for candidate in edge.placing.explain("parrot").candidates]
        assert ways == [55.0, 55.0]
        assert await placed(edge, 4) == [201] * 4
        assert (one.sessions, other.sessions) == (2, 2)


async def test_another_thread_may_ask_for_the_explanation(tmp_path: Path) -> None:
    async with a_fake(tmp_path) as (edge, _):
        report(edge, 1, region="eu")
        query = {"model": "parrot", "region": "us", "unknown": "x"}
        page = await asyncio.to_thread(explanation, edge.placing, asyncio.get_running_loop(), query)
        found = json.loads(page)
        assert (found["model"], found["region"], found["verdicts"]) == ("parrot", "us", {"good": 1})
        assert [(c["id"], c["region"]) for c in found["candidates"]] == [(1, "eu")]


async def test_one_that_left_the_directory_is_not_ranked(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, gone, other):
        report(edge, 1, latency_ms=100)
        report(edge, 2, latency_ms=1000)
        edge.transceivers.remove(1)
        assert await placed(edge, 3) == [201] * 3
        assert (gone.sessions, other.sessions) == (0, 3)
        assert [c.id for c in edge.placing.explain("parrot").candidates] == [2]
