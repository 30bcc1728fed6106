"""Hand-offs over HTTP to a model that only another transceiver has: which one is chosen, and what is said where none
takes the call.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fleets import a_report
from signaling_edge import CALLS, TOKEN, Edge, FakeTransceiver, an_edge

NOT_HERE = "model_not_found", "no agent called 'far': there is parrot"
_COUNT = itertools.count(1)


@dataclass
class House:
    """An edge with a call at the transceiver ``home``, which has no model but "parrot", and others that are played."""

    edge: Edge
    home: FakeTransceiver
    call: str

    def reports(self, number: int, *models: str, version: str = "", **said: Any) -> None:
        """Has the edge hear that a transceiver has these models."""
        nth = next(_COUNT)
        made = msgspec.structs.replace(a_report(number, models=models, version=version, **said), number=nth)
        assert self.edge.transceivers.report(made, time.monotonic() + nth * 1e-9, 0.001)

    async def hands_off(self, model: str) -> tuple[int, Any]:
        body = {"model": model}
        async with self.edge.http.post(
            f"{self.edge.url}{CALLS}/{self.call}/handoff", json=body, headers=TOKEN
        ) as response:
            return response.status, await response.json()

    @property
    def asked(self) -> list[int | None]:
        """Where the call was to move, in the order in which its transceiver was asked; None for nowhere."""
        return [(said.get("to") or {}).get("id") for said in self.home.said.get("session.handoff", ())]


@asynccontextmanager
async def a_house(directory: Path, **settings: Any) -> AsyncIterator[House]:
    async with an_edge(directory, 1, 2, 3, **{"models": ["*"], **settings}) as edge:
        fakes = [FakeTransceiver(n, f"ipc://{directory}/{n}") for n in (1, 2, 3)]
        try:
            await edge.ready(1, 2, 3)
            status, headers, _ = await edge.place("v=0")
            assert status == 201
            (home,) = [fake for fake in fakes if fake.placed_by]
            home.handoff_refusals[None] = NOT_HERE
            house = House(edge, home, str(headers["Location"]).rpartition("/")[2])
            for fake in fakes:
                house.reports(fake.number, "parrot")
            yield house
        finally:
            for fake in fakes:
                await fake.close()


def others(house: House) -> list[int]:
    return [number for number in (1, 2, 3) if number != house.home.number]


async def test_a_call_moves_to_the_transceiver_that_reports_the_model(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        _, there = others(house)
        house.reports(there, "parrot", "far")
        assert await house.hands_off("far") == (200, {"object": "realtime.call", "id": house.call, "model": "far"})
        assert house.asked == [None, there]
        assert house.home.said["session.handoff"][1]["to"] == {"id": there, "endpoint": f"ipc://{tmp_path}/{there}"}


async def test_a_version_of_the_model_that_the_call_has_is_looked_for_too(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        first, second = others(house)
        house.reports(house.home.number, "parrot", version="1")
        house.reports(first, "parrot", version="2")
        house.reports(second, "parrot", version="3")
        assert (await house.hands_off("parrot@3"))[0] == 200
        assert house.asked == [None, second]
        status, answer = await house.hands_off("parrot@4")
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert answer["error"]["message"].endswith("there is parrot@1, parrot@2, parrot@3")


async def test_one_that_drains_or_is_elsewhere_is_not_chosen(tmp_path: Path) -> None:
    async with a_house(tmp_path, region="fra", regions=["fra"]) as house:
        first, second = others(house)
        house.reports(first, "far", region="fra", draining=True)
        house.reports(second, "far", region="nyc")
        status, answer = await house.hands_off("far")
        assert (status, answer["error"]["code"]) == (503, "no_transceiver")
        assert house.asked == [None]


async def test_a_model_that_nobody_has_is_not_found_and_those_of_all_are_named(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        house.reports(others(house)[0], "near")
        status, answer = await house.hands_off("far")
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert answer["error"]["message"] == "no transceiver has a model called 'far': there is near, parrot"
        assert house.asked == [None]


@pytest.mark.parametrize("code", ["full", "draining", "model_not_found", "gone"])
async def test_where_one_has_no_place_the_next_is_asked(tmp_path: Path, code: str) -> None:
    async with a_house(tmp_path) as house:
        first, second = others(house)
        house.reports(first, "far", latency_ms=1.0)
        house.reports(second, "far", latency_ms=5000.0)
        house.home.handoff_refusals[first] = code, "not here"
        assert (await house.hands_off("far"))[0] == 200
        assert house.asked == [None, first, second]


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("full", 503, "full"),
        ("gone", 503, "gone"),
        ("handoff_failed", 503, "handoff_failed"),
        ("handoff_timeout", 504, "handoff_timeout"),
        ("not_connected", 409, "not_connected"),
    ],
)
async def test_who_asked_is_told_why_the_call_stays(tmp_path: Path, code: str, status: int, told: str) -> None:
    async with a_house(tmp_path) as house:
        there = others(house)
        for number in there:
            house.reports(number, "far")
            house.home.handoff_refusals[number] = code, f"{code} at {number}"
        found, answer = await house.hands_off("far")
        assert (found, answer["error"]["code"]) == (status, told)
        once = code not in ("full", "gone")
        assert len(house.asked) == (2 if once else 3)
        assert answer["error"]["message"] == f"{code} at {house.asked[-1]}"


async def test_a_transceiver_that_is_silent_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_house(tmp_path) as house:
        first, second = others(house)
        house.reports(first, "far", latency_ms=1.0)
        house.reports(second, "far", latency_ms=5000.0)
        lives = house.edge.placing._lives

        async def silent(number: int) -> bool:
            return number != first and await lives(number)

        monkeypatch.setattr(house.edge.placing, "_lives", silent)
        assert (await house.hands_off("far"))[0] == 200
        assert house.asked == [None, second]
