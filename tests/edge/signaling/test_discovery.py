"""Discovery of transceivers and edges in the directory's store, and links that are made when they are needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from signaling_edge import Edge, FakeTransceiver, a_fake, an_edge, two_fakes
from waiting import eventually

from edge.directory import Transceiver
from edge.directory_file import Listings, followed, load, prepare, write
from edge.links.transceivers import Unavailable
from edge.membership import Membership
from edge.signaling.discovery import Discovery, EdgeReporting
from runtime.config import Config
from runtime.directory.store import MemoryStore, Snapshot, StoreError
from wire.messages import Health
from wire.report import EdgeReport, Report

TTL_S = 5.0
BESIDE = "203.0.113.1:3478"


def reports(*numbers: int) -> dict[int, Report]:
    return {number: Report(number, f"ipc:///run/{number}") for number in numbers}


def ids(members: Membership) -> list[int]:
    return [each.id for each in members.transceivers]


# --- who is there


def test_who_is_missing_for_long_enough_may_be_gone_and_stays_if_it_answers() -> None:
    members = Membership(TTL_S, 10, {}, 100.0)
    assert members.take(reports(1, 2), 100.0)
    assert not members.take(reports(1), 101.0), "nobody came, and nobody goes at once"
    assert members.missing(104.9) == []
    assert members.missing(105.0) == [2]
    members.answered(2, 105.0)
    members.take(reports(1), 109.0)
    assert members.missing(109.9) == []
    assert members.missing(110.0) == [2]
    members.gone(2)
    assert ids(members) == [1]
    assert members.take(reports(1, 2), 111.0), "and comes again"


def test_nobody_is_missing_while_the_store_cannot_be_read_or_has_just_come_back() -> None:
    members = Membership(TTL_S, 10, {1: "ipc:///run/1"}, 100.0)
    assert members.missing(900.0) == [], "it was never read"
    members.take({}, 900.0)
    assert members.missing(904.9) == []
    members.unreadable()
    assert members.missing(1000.0) == []
    members.take({}, 1000.0)
    assert members.missing(1004.9) == []
    assert members.missing(1005.0) == [1]
    assert ids(members) == [1]


def test_one_that_moves_is_a_change_and_too_many_are_not_taken() -> None:
    members = Membership(TTL_S, 3, {}, 100.0)
    members.take(reports(1, 2), 100.0)
    assert not members.take(reports(1, 2), 101.0)
    assert members.take({1: Report(1, "tcp://192.0.2.1:7400")}, 102.0)
    assert members.transceivers[0] == Transceiver(1, "tcp://192.0.2.1:7400")
    assert members.take(reports(2, *range(10, 20)), 103.0)
    assert ids(members) == [1, 2, 10]


# --- the files


def test_the_configuration_counts_where_the_store_says_otherwise(tmp_path: Path) -> None:
    log: Any = Lines()
    ours, found = tmp_path / "ours", tmp_path / "found"
    write(ours, [Transceiver(1, "ipc:///run/1")])
    assert prepare(found, log, keep=True) == str(found)
    both = Listings(followed(str(ours), (), log), followed(str(found), (), log))
    write(found, [Transceiver(1, "ipc:///elsewhere"), Transceiver(2, "ipc:///run/2")])
    assert both.refresh()
    assert both.value.transceivers == (Transceiver(1, "ipc:///run/1"), Transceiver(2, "ipc:///run/2"))
    write(found, [])
    assert both.refresh()
    assert both.value.transceivers == (Transceiver(1, "ipc:///run/1"),)
    assert Transceiver(2, "ipc:///run/2") in both.value.departed
    assert not both.refresh()
    assert log.lines == []


def test_what_was_found_outlives_processes_but_not_the_configuration(tmp_path: Path) -> None:
    found, log = tmp_path / "run" / "found", Lines()
    prepare(found, log, keep=True)
    write(found, [Transceiver(2, "ipc:///run/2")])
    prepare(found, log, keep=True)
    assert load(found).transceivers == (Transceiver(2, "ipc:///run/2"),)
    prepare(found, log, keep=False)
    assert load(found).transceivers == ()
    (tmp_path / "file").touch()
    assert prepare(tmp_path / "file" / "found", log, keep=True) == ""
    assert len(log.lines) == 1


# --- the store


class Lines:
    """A log, by line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, **facts: Any) -> None:
        self.lines.append(f"{event}: {facts.get('why', '')}")

    warning = error = info


class Shaky(MemoryStore):
    """A store whose time is set, and that may be away."""

    def __init__(self) -> None:
        self.now = 100.0
        self.away = False
        self.refused: dict[str, int] = {}
        self.may_be_old_s: list[float] = []
        super().__init__(TTL_S, lambda: self.now)

    async def snapshot(self, at_most_s: float = 0.0) -> Snapshot:
        self.may_be_old_s.append(at_most_s)
        if self.away:
            raise StoreError("no route to it")
        there = await super().snapshot()
        return Snapshot(there.transceivers, there.edges, self.refused)


@dataclass
class Bench:
    edge: Edge
    store: Shaky
    discovery: Discovery
    log: Lines
    found: Path
    edges: list[list[EdgeReport]]

    def listed(self) -> list[int]:
        return [each.id for each in load(self.found).transceivers]


@asynccontextmanager
async def a_bench(edge: Edge, folder: Path) -> AsyncIterator[Bench]:
    """An edge's discovery, which looks when the test says so. Its time is the store's."""
    store, log, found = Shaky(), Lines(), folder / "edge.found"
    prepare(found, log, keep=True)
    told: list[list[EdgeReport]] = []
    discovery = Discovery(
        store,
        edge.transceivers,
        edge.links,
        found=found,
        known=load(found).transceivers,
        configured=lambda: [Transceiver(9, "ipc:///run/9")],
        ttl_s=TTL_S,
        log=log,
        edges=lambda known: told.append(list(known)),
        beside=lambda report: report.media == BESIDE,
        clock=lambda: store.now,
    )
    yield Bench(edge, store, discovery, log, found, told)


async def test_who_is_found_is_listed_and_its_report_is_known(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge, a_bench(edge, tmp_path) as bench:
        report = Report(2, f"ipc://{tmp_path}/2", generation=1, number=1, sessions=3)
        await bench.store.put(report)
        await bench.discovery.look()
        assert bench.listed() == [2]
        edge.transceivers.replace(load(bench.found).transceivers)
        await bench.discovery.look()
        known = edge.transceivers.reports[2]
        assert (known.report, known.received_at, known.round_trip_s) == (report, 100.0, None)


async def test_one_that_vanishes_goes_only_when_its_link_is_down_too(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, one, two), a_bench(edge, tmp_path) as bench:
        for number in (1, 2):
            await bench.store.put(Report(number, f"ipc://{tmp_path}/{number}"))
        await bench.discovery.look()
        await two.close()
        bench.store.now += TTL_S  # and the store is empty
        await bench.discovery.look()
        assert bench.listed() == [1]
        assert one.counts["health"]
        bench.store.now += TTL_S - 1
        asked = one.counts["health"]
        await bench.discovery.look()
        assert (bench.listed(), one.counts["health"]) == ([1], asked), "it is not asked again at once"


async def test_while_the_store_is_away_nothing_changes_and_what_is_known_gets_older(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge, a_bench(edge, tmp_path) as bench:
        await bench.store.put(Report(1, "ipc:///nowhere/1"))
        await bench.discovery.look()
        bench.store.away = True
        for _ in range(3):
            bench.store.now += TTL_S
            await bench.discovery.look()
        assert (bench.listed(), bench.discovery.age_s) == ([1], 3 * TTL_S)
        away = "the directory's store is away: this edge goes on with what it knows: no route to it"
        assert bench.log.lines == [away]
        bench.store.away = False  # and empty
        await bench.discovery.look()
        assert (bench.listed(), bench.discovery.age_s) == ([1], 0.0)
        assert bench.log.lines[1:] == ["the directory's store is back: "]
        await bench.store.put(Report(1, "ipc:///nowhere/1"))
        bench.store.now += TTL_S - 0.1
        await bench.discovery.look()
        assert bench.listed() == [1]


async def test_what_cannot_be_used_is_said_once(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge, a_bench(edge, tmp_path) as bench:
        await bench.store.put(Report(9, "ipc:///elsewhere"))
        bench.store.refused = {"too_large": 2, "malformed": 1}
        for _ in range(3):
            await bench.discovery.look()
        refused, elsewhere = bench.log.lines
        assert refused == "entries in the directory's store cannot be used: 2 too large, 1 malformed"
        assert elsewhere.startswith("a transceiver of the directory is not used: edge.transceivers has transceiver 9")
        bench.store.refused = {}
        await bench.discovery.look()
        bench.store.refused = {"malformed": 7}
        await bench.discovery.look()
        assert bench.log.lines[2:] == ["entries in the directory's store cannot be used: 7 malformed"]


async def test_edges_are_told_of_while_they_repeat_themselves(tmp_path: Path) -> None:
    config = Config(edge={"name": "a", "media": "203.0.113.1:3478", "region": "eu"}).edge
    reporting = EdgeReporting(config, "tcp://192.0.2.1:7300", lambda: True)
    async with an_edge(tmp_path) as edge, a_bench(edge, tmp_path) as bench:
        report = reporting.make()
        assert (report.name, report.media, report.region) == ("a", "203.0.113.1:3478", "eu")
        assert (report.endpoint, report.draining, report.number) == ("tcp://192.0.2.1:7300", True, 1)
        await bench.store.put(report)
        await bench.discovery.look()
        await bench.discovery.look()
        assert bench.edges == [[report]], "which is told once"
        bench.store.away = True
        bench.store.now += TTL_S
        await bench.discovery.look()
        assert len(bench.edges) == 1
        bench.store.away = False  # and empty
        await bench.discovery.look()
        assert len(bench.edges) == 1
        bench.store.now += TTL_S
        await bench.discovery.look()
        assert bench.edges[1:] == [[]]


async def test_edges_behind_the_same_address_are_listed_for_workers_while_they_are_there(tmp_path: Path) -> None:
    def reporting(name: str, media: str, endpoint: str) -> EdgeReporting:
        return EdgeReporting(Config(edge={"name": name, "media": media}).edge, endpoint)

    async with an_edge(tmp_path) as edge, a_bench(edge, tmp_path) as bench:
        beside = reporting("b", BESIDE, "tcp://192.0.2.2:7300")
        for each in (beside, reporting("c", "203.0.113.3:3478", "tcp://192.0.2.3:7300"), reporting("d", BESIDE, "")):
            await bench.store.put(each.make())
        await bench.store.put(Report(2, f"ipc://{tmp_path}/2", generation=1, number=1))
        await bench.discovery.look()
        assert (load(bench.found).beside, bench.listed()) == (("tcp://192.0.2.2:7300",), [2])
        written = bench.found.stat().st_mtime_ns
        await bench.store.put(beside.make())
        await bench.discovery.look()
        assert bench.found.stat().st_mtime_ns == written, "a report that says nothing new is no change"
        bench.store.now += TTL_S
        await bench.discovery.look()
        bench.store.now += TTL_S
        await bench.discovery.look()
        assert load(bench.found).beside == ()


async def test_a_hint_brings_the_next_look_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.signaling.discovery._EVERY_S", 3600.0)
    monkeypatch.setattr("edge.signaling.discovery._LEAST_S", 0.0)
    async with an_edge(tmp_path) as edge, a_bench(edge, tmp_path) as bench:
        running = asyncio.create_task(bench.discovery.run())
        try:
            await eventually(lambda: bench.store.waits)
            await bench.store.put(Report(1, "ipc:///run/1"))
            await eventually(lambda: bench.listed() == [1])
            regular, hinted = bench.store.may_be_old_s[0], bench.store.may_be_old_s[-1]
            assert hinted < regular, "or it might be of before the change"
        finally:
            running.cancel()


# --- links when they are needed


async def test_beyond_the_first_a_transceiver_is_linked_when_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.links.transceivers.AT_ONCE", 1)
    monkeypatch.setattr("edge.links.transceivers._UP_WITHIN_S", 30.0)
    async with a_fake(tmp_path) as (edge, _):
        two = FakeTransceiver(2, f"ipc://{tmp_path}/2")
        try:
            for number in (2, 3):
                edge.transceivers.put(Transceiver(number, f"ipc://{tmp_path}/{number}"))
            assert (edge.links.linked, edge.links.ids) == ((1,), (1, 2, 3))
            reports = await asyncio.gather(*(edge.links.ask(2, Health()) for _ in range(3)))
            assert [report.sessions for report in reports] == [0, 0, 0]
            assert edge.links.linked == (1, 2)
            monkeypatch.setattr("edge.links.transceivers._UP_WITHIN_S", 0.1)
            with pytest.raises(Unavailable):
                await edge.links.ask(3, Health())
            with pytest.raises(Unavailable, match="not in this edge's directory"):
                await edge.links.ask(4, Health())
            assert edge.links.sampled == (1, 2, 3)
            edge.transceivers.remove(2)
            assert (edge.links.sampled, edge.links.linked) == ((1, 3), (1, 2, 3))
        finally:
            await two.close()


async def test_calls_are_placed_at_those_that_have_no_link_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.links.transceivers.AT_ONCE", 1)
    monkeypatch.setattr("edge.links.transceivers._UP_WITHIN_S", 30.0)
    async with a_fake(tmp_path) as (edge, one):
        two = FakeTransceiver(2, f"ipc://{tmp_path}/2")
        try:
            edge.transceivers.put(Transceiver(2, f"ipc://{tmp_path}/2"))
            placed = [(await edge.place("v=0"))[0] for _ in range(4)]
            assert placed == [201] * 4
            assert (one.sessions, two.sessions) == (2, 2)
        finally:
            await two.close()
