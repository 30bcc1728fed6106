"""The simulation of placement: it counts every call, and its report says what it found."""

from __future__ import annotations

import numpy as np
import pytest

from bench.placement.cost import cost
from bench.placement.report import figures, markdown, targets
from bench.placement.simulation import Day, Plan, simulate
from bench.placement.strategies import STRATEGIES
from bench.placement.world import REGIONS, World, agent_factor, make_world

PLAN = Plan(day_s=12, call_s=8, die=0.1, drain=0.1, dead_s=4)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(60, 20, 3)


@pytest.fixture(scope="module")
def days(world: World) -> dict[str, Day]:
    return {name: simulate(world, made(world, 3), PLAN, lambda so_far: None) for name, made in STRATEGIES.items()}


def test_every_call_is_placed_or_refused_and_all_ways_have_the_same_calls(days: dict[str, Day]) -> None:
    for day in days.values():
        assert len(day.waited_ms) == len(day.at) == day.calls - day.refused
        assert day.refused >= day.refused_with_room
        assert (day.waited_ms > 0).all()
    assert len({day.calls for day in days.values()}) == 1


def test_firsthop_refuses_nobody_while_there_is_room_and_is_sooner(days: dict[str, Day]) -> None:
    ours = days["firsthop"]
    assert ours.refused_with_room == 0
    for name in ("random", "round robin", "least loaded"):
        assert np.percentile(ours.waited_ms, 99) < np.percentile(days[name].waited_ms, 99)
        assert np.median(ours.waited_ms) < np.median(days[name].waited_ms)


def test_the_same_seed_makes_the_same_day(world: World, days: dict[str, Day]) -> None:
    again = simulate(world, STRATEGIES["firsthop"](world, 3), PLAN, lambda so_far: None)
    assert (again.waited_ms == days["firsthop"].waited_ms).all()


def test_the_report_has_a_row_for_each_way_and_a_verdict_for_each_target(
    days: dict[str, Day], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.placement.cost._SECONDS", 1)
    monkeypatch.setattr("bench.placement.cost._CALLS_A_SECOND", 10)
    rows = [figures(name, day, 0.0) for name, day in days.items()]
    result = {"rows": rows, "cost": cost(3, 100), "edges": 20}
    text = markdown(result)
    assert all(f"| {name} |" in text for name in STRATEGIES)
    assert len(targets(result)) == 3
    rows[-1]["refused_with_room"] = 1
    assert not targets(result)[-1]["pass"]


def test_the_world_is_one(world: World) -> None:
    assert world.capacity.min() >= 60
    assert world.capacity.max() <= 130
    assert (np.diag(world.round_trip_ms) < 2).all()
    assert np.allclose(world.round_trip_ms, world.round_trip_ms.T)
    names = [region[0] for region in REGIONS]
    virginia, london, sydney = (names.index(name) for name in ("virginia", "london", "sydney"))
    assert 60 < world.round_trip_ms[virginia, london] < 110 < world.round_trip_ms[london, sydney] < 300
    assert agent_factor(np.array([0.0, 0.7, 1.0])).tolist() == [1.0, 1.0, 2.0]
    busy = [world.demand(hour / 24).sum() for hour in range(24)]
    assert max(busy) > 1.2 * min(busy)
