"""The transceivers that a call is offered to, and their order."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from fleets import a_report, fleet_of, placer_of
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.placement.fleet import Fleet
from edge.placement.placer import MOST_FULL, OLD_S, Choice, Placer, Wanted
from edge.placement.score import POLICIES
from wire.report import Report

PARROT = Wanted("parrot")
REGIONS = ("", "eu", "us")

a_transceiver = st.builds(
    a_report,
    number=st.integers(0, 40),
    sessions=st.integers(0, 120),
    room=st.none() | st.integers(0, 60),
    models=st.sets(st.sampled_from(("parrot", "offline", "echo"))).map(tuple),
    version=st.sampled_from(("", "1", "2")),
    latency_ms=st.none() | st.floats(1, 1000),
    queue=st.integers(0, 20),
    region=st.sampled_from(REGIONS),
    draining=st.booleans(),
    most=st.sampled_from((0, 60, 200)),
)
a_wish = st.builds(
    Wanted,
    model=st.sampled_from(("", "parrot", "offline", "nobody's")),
    version=st.sampled_from(("", "1", "3")),
    region=st.sampled_from(REGIONS),
    within=st.sampled_from(((), ("eu",), ("eu", "us"), ("moon",))),
)


def order(placer: Placer, wanted: Wanted = PARROT, now: float = 0.0) -> list[int]:
    return [choice.id for choice in placer.choices(wanted, now)]


def first(placer: Placer, wanted: Wanted = PARROT, now: float = 0.0) -> Choice:
    return next(placer.choices(wanted, now))


def fits(report: Report, wanted: Wanted) -> bool:
    """What a person would say, slowly."""
    offered = [m for m in report.models if wanted.model in ("", m.name)]
    if wanted.model and not offered:
        return False
    if wanted.version and not (wanted.model and offered[0].version == wanted.version):
        return False
    return not report.draining and (not wanted.within or report.region in wanted.within)


def has_room(report: Report, wanted: Wanted) -> bool:
    rooms = [m.room for m in report.models if wanted.model in ("", m.name) and m.room is not None]
    return min(rooms, default=1) > 0 and (not report.most or report.sessions < report.most)


@settings(max_examples=100, deadline=None)
@given(st.lists(a_transceiver, max_size=30), a_wish, st.sampled_from(sorted(POLICIES)), st.integers(0, 99))
def test_whoever_fits_is_asked_once_and_nobody_else(
    reports: list[Report], wanted: Wanted, policy: str, seed: int
) -> None:
    last = {report.id: report for report in reports}
    asked = order(placer_of(fleet_of(*reports), policy, seed), wanted)
    assert len(asked) == len(set(asked))
    assert all(fits(last[number], wanted) for number in asked)
    with_room = {number for number, report in last.items() if fits(report, wanted) and has_room(report, wanted)}
    assert set(asked[: len(with_room)]) == with_room
    full = {number for number, report in last.items() if fits(report, wanted)} - with_room
    assert len(asked) == len(with_room) + min(MOST_FULL, len(full))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), a_transceiver, st.integers(0, 40)), max_size=60),
    st.sampled_from(("", "parrot")),
)
def test_a_fleet_that_came_and_went_is_one_that_was_always_so(
    steps: list[tuple[bool, Report, int]], model: str
) -> None:
    fleet, last = Fleet(), dict[int, Report]()
    for i, (comes, report, goes) in enumerate(steps):
        if comes:
            fleet.put(report, i * 1e-6, 0.01)
            last[report.id] = report
        else:
            fleet.remove(goes)
            last.pop(goes, None)
    wanted = Wanted(model)
    fresh = fleet_of(*last.values())
    assert len(fleet) == len(last)
    assert fleet.names == fresh.names
    for name, offers in fleet.models.items():
        assert offers.size == fresh.models[name].size
    assert len(fleet.regions) == len({"", *(report.region for report in last.values())})
    asked, expected = (
        {choice.id for choice in placer_of(each).choices(wanted, 0.0) if choice.why != "full"}
        for each in (fleet, fresh)
    )
    assert asked == expected
    shown = {number: fleet.id[row] for number in last if (row := fleet.row(number)) is not None}
    assert shown == {number: number for number in last}


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_hundred_edges_with_one_stale_report_do_not_choose_one_transceiver(policy: str) -> None:
    reports = [a_report(number, 40 + number % 3, 40) for number in range(200)]
    reports.append(a_report(999, 0 if policy != "pack" else 60, 80))  # a little better than all others
    chosen: Counter[int] = Counter()
    for seed in range(100):
        placer = placer_of(fleet_of(*reports), policy, seed)
        for _ in range(5):
            choice = first(placer)
            placer.asked(choice.id)
            chosen[choice.id] += 1
    assert max(chosen.values()) <= 500 * 0.1  # chance alone gives each 2.5


def test_one_edge_counts_what_it_has_placed_since_the_report() -> None:
    fleet = fleet_of(*(a_report(number, 0, 10) for number in (1, 2)))
    placer = placer_of(fleet)
    chosen: Counter[int] = Counter()
    for _ in range(20):
        choice = first(placer)
        placer.asked(choice.id)
        placer.placed(choice.id)
        chosen[choice.id] += 1
    assert chosen == {1: 10, 2: 10}
    assert [choice.why for choice in placer.choices(PARROT, 0.0)] == ["full", "full"]
    fleet.put(a_report(1, 5, 5), 1.0)  # half of them came to nothing
    assert first(placer, now=1.0).id == 1


def test_what_came_to_nothing_counts_no_longer() -> None:
    placer = placer_of(fleet_of(a_report(1, 0, 1)))
    placer.asked(1)
    assert first(placer).why == "full"
    placer.failed(1)
    assert first(placer).why != "full"


def test_a_call_that_is_being_placed_counts_whatever_reports_come() -> None:
    fleet = fleet_of(a_report(1, 0, 1), a_report(2, 90, 5))
    placer = placer_of(fleet)
    placer.asked(1)
    fleet.put(a_report(1, 0, 1), 1.0, 0.01)
    assert order(placer, now=1.0) == [2, 1]
    placer.placed(1)
    assert order(placer, now=2.0) == [2, 1]
    fleet.put(a_report(1, 0, 1), 3.0, 0.01)  # it was over at once
    assert order(placer, now=3.0)[0] == 1


def test_a_report_that_comes_twice_takes_back_nothing() -> None:
    fleet = fleet_of(a_report(1, 0, 1), a_report(2, 90, 5))
    placer = placer_of(fleet)
    placer.full(1)
    fleet.put(a_report(1, 0, 1), 0.0, 0.02)
    assert order(placer, now=3.0) == [2, 1]


@pytest.mark.parametrize("room", [30, None])
def test_one_that_refused_is_passed_over_until_it_reports_again(room: int | None) -> None:
    fleet = fleet_of(a_report(1, 0, room), a_report(2, 90, 5))
    placer = placer_of(fleet)
    placer.full(1)
    for now in (0.0, 1.0, 2.0):
        assert order(placer, now=now) == [2, 1]
    fleet.put(a_report(1, 0, room), 3.0, 0.01)
    assert order(placer, now=3.0)[0] == 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 80),
    st.integers(1, 100),
    st.floats(0.0, 0.3),
    st.floats(1, 800),
    st.integers(0, 10),
    st.integers(1, 9),
)
def test_more_load_a_longer_way_or_a_slower_agent_is_never_better(
    sessions: int, room: int, way_s: float, latency_ms: float, queue: int, more: int
) -> None:
    def score(sessions: int, way_s: float, latency_ms: float, queue: int) -> float:
        report = a_report(1, sessions, sessions_and_room - sessions, latency_ms=latency_ms, queue=queue)
        return first(placer_of(fleet_of(report, round_trip_s=way_s))).score_ms

    sessions_and_room = sessions + room
    base = score(sessions, way_s, latency_ms, queue)
    assert score(min(sessions + more, sessions_and_room), way_s, latency_ms, queue) >= base
    assert score(sessions, way_s + more / 100, latency_ms, queue) > base
    assert score(sessions, way_s, latency_ms + 10 * more, queue) > base
    assert score(sessions, way_s, latency_ms, queue + more) >= base


def test_a_near_one_is_preferred_until_it_is_full() -> None:
    fleet = fleet_of(a_report(1, 10, 40))
    fleet.put(a_report(2, 0, 100), 0.0, 0.15)
    placer = placer_of(fleet)
    assert [order(placer)[0] for _ in range(20)] == [1] * 20
    fleet.put(a_report(1, 50, 0), 1.0, 0.01)
    assert order(placer, now=1.0) == [2, 1]


def test_a_way_that_nobody_measured_is_as_long_as_those_to_its_region() -> None:
    fleet = fleet_of(a_report(1, region="eu"), a_report(2, region="us"))
    fleet.put(a_report(1, region="eu"), 0.0, 0.004)
    fleet.put(a_report(2, region="us"), 0.0, 0.08)
    for number, region in ((3, "eu"), (4, "us"), (5, "asia")):
        fleet.put(a_report(number, region=region), 0.0, None)
    ways = {choice.id: choice.network_ms for choice in placer_of(fleet).choices(PARROT, 0.0)}
    assert ways[3] == ways[1] < ways[2] == ways[4] < ways[5]


def test_a_wish_for_a_region_yields_to_a_much_longer_way_and_a_demand_does_not() -> None:
    fleet = fleet_of(a_report(1, region="eu"), round_trip_s=0.1)
    fleet.put(a_report(2, region="us"), 0.0, 0.001)
    placer = placer_of(fleet)
    assert order(placer, Wanted("parrot", region="eu")) == [2, 1]
    fleet.put(a_report(1, region="eu"), 1.0, 0.01)
    assert order(placer, Wanted("parrot", region="eu"), 1.0) == [1, 2]
    assert order(placer, Wanted("parrot", within=("eu",)), 1.0) == [1]


def test_spread_fills_evenly_and_pack_fills_up() -> None:
    reports = [a_report(number, 10 * number, 100 - 10 * number) for number in range(10)]
    emptiest = [first(placer_of(fleet_of(*reports), "spread", seed)).id for seed in range(200)]
    fullest = [first(placer_of(fleet_of(*reports), "pack", seed)).id for seed in range(200)]
    assert sum(emptiest) / 200 < 4 < 7 < sum(fullest) / 200


def test_an_old_report_is_asked_after_the_fresh_ones_and_before_the_full_ones() -> None:
    fleet = fleet_of(a_report(1), a_report(2, 90, 0), a_report(3, 80, 10))
    now = OLD_S + 1
    fleet.put(a_report(2, 90, 0), now, 0.01)
    fleet.put(a_report(3, 80, 10), now, 0.01)
    assert [(choice.id, choice.why) for choice in placer_of(fleet).choices(PARROT, now)] == [
        (3, "best of 1"),
        (1, "old report"),
        (2, "full"),
    ]


def test_where_all_reports_are_old_they_serve_as_they_did() -> None:
    reports = [a_report(number, number, 40) for number in range(30)]
    chosen = {first(placer_of(fleet_of(*reports), seed=seed), now=1000.0).id for seed in range(30)}
    assert len(chosen) > 5


def test_one_that_begins_to_drain_gets_no_further_call() -> None:
    fleet = fleet_of(a_report(1), a_report(2, 90, 5))
    placer = placer_of(fleet)
    assert first(placer).id == 1
    fleet.put(a_report(1, draining=True), 0.01, 0.01)
    assert order(placer, now=0.01) == [2]
    fleet.remove(2)
    assert order(placer, now=0.01) == []


def test_the_same_chance_makes_the_same_choices() -> None:
    def run() -> list[int]:
        placer = Placer(fleet_of(*(a_report(n, n % 7, 40) for n in range(50))), POLICIES["latency"], random.Random(7))
        return [first(placer).id for _ in range(50)]

    assert run() == run()


def test_models_beyond_the_bound_are_left_out_and_counted() -> None:
    fleet = Fleet(most_offers=5)
    fleet.put(a_report(1, models=tuple(f"m{i}" for i in range(100))), 0.0)
    fleet.put(a_report(2, models=("parrot",)), 0.0)
    assert sum(offers.size for offers in fleet.models.values()) == 5
    assert fleet.left_out == 101 - 5 + 2
    fleet.remove(1)
    fleet.put(a_report(2, models=("parrot", "echo")), 1.0)
    assert order(placer_of(fleet)) == [2]


def test_where_nobody_hears_the_difference_the_load_decides() -> None:
    fleet = fleet_of(a_report(1, 10, 40))
    fleet.put(a_report(2, 5, 45, latency_ms=205), 1e-6, 0.012)  # a frame later at most
    chosen = [first(placer_of(fleet, seed=seed)) for seed in range(20)]
    assert {choice.id for choice in chosen} == {2}
    over = chosen[0].over
    assert over is not None
    assert (over[0], over[1] < chosen[0].score_ms) == (1, True)


def test_equal_ones_are_chosen_equally_often() -> None:
    chosen = Counter(first(placer_of(fleet_of(a_report(1), a_report(2)), seed=seed)).id for seed in range(200))
    assert min(chosen[1], chosen[2]) > 50
