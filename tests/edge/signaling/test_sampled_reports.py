"""Reports of transceivers as signaling has them: they come over links, whose round trips are measured."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from signaling_edge import Edge, a_fake, two_fakes
from waiting import eventually

from edge.directory import Directory, Known, Transceiver
from edge.links.sampling import sample
from edge.links.transceivers import Unavailable
from wire.control import Control, Reader, encode
from wire.messages import Health, HealthReport, ToSignaling
from wire.report import Gpu, Model, Report
from wire.versions import OLDEST, VERSION

ONE, TWO = Transceiver(1, "ipc:///run/1"), Transceiver(2, "ipc:///run/2")


def report(number: int = 1, generation: int = 7, **fields: Any) -> Report:
    return Report(1, generation=generation, number=number, **fields)


def _report_of(edge: Edge, number: int) -> Report | None:
    known = edge.transceivers.reports.get(number)
    return known.report if known else None


def test_a_report_is_as_old_as_its_reader_has_had_it() -> None:
    directory = Directory([ONE])
    assert directory.report(report(1, sessions=3), 100.0, 0.02)
    assert directory.reports == {1: Known(report(1, sessions=3), 100.0, 0.02, 0.02)}
    # The same again is no newer, though the way has been measured once more.
    assert directory.report(report(1, sessions=3), 101.0, 0.01)
    known = directory.reports[1]
    assert known.received_at == 100.0
    assert known.round_trip_s == pytest.approx(0.02 - 0.01 / 8)
    assert known.least_round_trip_s == 0.01
    assert directory.report(report(2), 102.0)
    known = directory.reports[1]
    assert (known.report, known.received_at, known.least_round_trip_s) == (report(2), 102.0, 0.01)


def test_an_older_report_is_not_taken_and_another_process_counts_anew() -> None:
    directory = Directory([ONE])
    directory.report(report(5), 100.0)
    assert not directory.report(report(4), 101.0)
    assert directory.reports[1] == Known(report(5), 100.0)
    assert directory.report(report(1, generation=8), 102.0)
    assert directory.reports[1] == Known(report(1, generation=8), 102.0)


def test_only_who_is_present_has_a_report() -> None:
    directory = Directory([ONE, TWO])
    assert directory.report(report(1), 100.0)
    assert not directory.report(Report(3), 100.0)
    directory.remove(1)
    assert directory.reports == {}
    assert not directory.report(report(2), 101.0)


@pytest.mark.parametrize("version", [OLDEST, VERSION])
def test_a_report_crosses_the_wire_in_either_version(version: int) -> None:
    models = (Model("parrot", "1.0", 12, 3, 250.5), Model("other"))
    said = report(9, endpoint="tcp://192.0.2.1:7400", models=models, gpus=(Gpu("H100", 1, 2, 0.5),), region="eu")
    read = Reader[ToSignaling](ToSignaling).read(encode(HealthReport(sessions=1, report=said), 4, version))
    assert isinstance(read, Control)
    assert read.message == HealthReport(sessions=1, report=said)


def test_a_report_of_a_later_release_is_read_without_what_is_new() -> None:
    fields = {**msgspec.to_builtins(report(3)), "altitude_m": 7}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(fields), type=Report) == report(3)


async def test_each_linked_transceiver_is_asked_again_and_again(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, one, two):
        directory = edge.transceivers
        one.report = Report(1, generation=1, number=1, sessions=5)  # and two is of a release without reports
        sampling = asyncio.create_task(sample(edge.links, directory, every_s=0.02))
        try:
            await eventually(lambda: 1 in directory.reports)
            assert directory.reports[1].report == one.report
            round_trip_s = directory.reports[1].round_trip_s
            assert round_trip_s is not None
            assert round_trip_s > 0
            one.report = Report(1, generation=1, number=2, sessions=6)
            await eventually(lambda: directory.reports[1].report.sessions == 6)
            await eventually(lambda: two.counts["health"] > 2)
            assert set(directory.reports) == {1}
        finally:
            sampling.cancel()


async def test_one_that_is_silent_delays_no_other(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, silent, other):
        silent.mute = {"health"}
        other.report = Report(2, number=1)
        asked = silent.counts["health"]
        sampling = asyncio.create_task(sample(edge.links, edge.transceivers, every_s=0.02))
        try:
            for number in range(2, 12):
                other.report = Report(2, number=number)
                await eventually(lambda: _report_of(edge, 2) == other.report)
            assert silent.counts["health"] >= asked
            assert 1 not in edge.transceivers.reports
        finally:
            sampling.cancel()


async def test_a_report_under_another_id_is_refused(tmp_path: Path) -> None:
    async with a_fake(tmp_path) as (edge, one):
        one.report = Report(2)
        with pytest.raises(Unavailable, match="no usable answer"):
            await edge.links.ask(1, Health())
        one.report = Report(1)
        assert (await edge.links.ask(1, Health())).report == Report(1)
