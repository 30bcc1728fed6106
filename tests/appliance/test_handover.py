"""Transceivers that leave while calls go on: their calls are handed over, and nobody hears it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import psutil
import pytest
from another import started_third
from calling import finish, hang_up, lost_in, start_call
from observing import cores, logged, sessions_of
from sidebands import a_sideband, told_by
from waiting import DEADLINE_S, until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root

MOVED, TAKEN = ("firsthop_transceiver_handovers_total", "moved"), ("firsthop_transceiver_taken_total", "taken")


@pytest.fixture
def house(lab: Lab, tmp_path: Path) -> Iterator[Appliance]:
    """An appliance with two transceivers, one a core, which have time to hand calls over."""
    with Appliance(tmp_path, lab=lab, transceiver_cores=cores()[:2], drain_s=60, placement="spread") as appliance:
        yield appliance


def of_both(house: Appliance) -> list[int | None]:
    return [sessions_of(house, name) for name in ("media-1", "media-2")]


def spread(house: Appliance, calls: int) -> bool:
    """Whether so many calls are up, and some at either of the two."""
    now = of_both(house)
    return None not in now and sum(now) == calls and min(now) > 0 and len(logged(house, "media up")) == calls


def test_a_process_that_is_told_to_end_hands_its_calls_over_and_nobody_hears_it(lab: Lab, house: Appliance) -> None:
    calls = start_call(lab.client, house, "-n", "6", "--model", "echo", "--duration", "90", "--rate", "5")
    until(lambda: spread(house, 6))
    its_calls = [line["call"] for line in logged(house, "session") if line["id"] == 1]
    with a_sideband(lab.client, house, its_calls[0]) as sideband:
        replaced(house, "media-1")  # the supervisor wants a process there, and starts another
        until(lambda: of_both(house) == [0, 6])
        assert sorted(line["call"] for line in logged(house, "took a call over")) == sorted(its_calls)
        said = hang_up(calls)
        told = told_by(sideband)
    assert (said["calls"]["ok"], lost_in(said["audio"])) == (6, 0)
    assert said["audio"]["packets"]["rejected"] == 0
    assert (told["code"], told["answers"]) == (1001, [str(i) for i in range(len(told["answers"]))])
    assert len(told["answers"]) > 50
    # The one that began again takes calls.
    again = finish(start_call(lab.client, house, "-n", "4", "--model", "echo", "--duration", "1"))
    assert again["calls"]["ok"] == 4


def test_a_host_hands_its_calls_over_to_another_host(lab: Lab, tmp_path: Path) -> None:
    with ExitStack() as stack:
        house = stack.enter_context(Appliance(tmp_path, lab=lab, drain_s=60))
        third, endpoint = stack.enter_context(started_third(lab, house, elsewhere=True))
        calls = start_call(lab.client, house, "-n", "4", "--model", "echo", "--duration", "90")
        until(lambda: len(logged(house, "media up")) == 4)
        # Now the edge learns of the other, and the first is told to end.
        text = house.config_file.read_text()
        house.config_file.write_text(
            text.replace("[transceiver]", f'[[edge.transceivers]]\nid = 3\nendpoint = "{endpoint}"\n[transceiver]')
        )
        house.processes["edge"].send_signal(signal.SIGHUP)
        house.processes["transceiver"].send_signal(signal.SIGTERM)
        assert house.processes["transceiver"].wait(DEADLINE_S) == 0
        assert len(logged(house, "moved")) == 4
        assert third.poll() is None
        said = hang_up(calls)
    assert (said["calls"]["ok"], lost_in(said["audio"])) == (4, 0)


def test_a_new_configuration_is_taken_up_by_every_process_with_calls_going_on(lab: Lab, house: Appliance) -> None:
    calls = start_call(lab.client, house, "-n", "4", "--model", "echo", "--duration", "90")
    until(lambda: len(logged(house, "media up")) == 4)
    before = {name: child.pid for name, child in house.children().items() if name in ("media-1", "media-2")}
    text = house.config_file.read_text()
    house.config_file.write_text(text.replace('agent = "parrot"', 'agent = "echo"'))
    house.processes["transceiver"].send_signal(signal.SIGHUP)

    def all_new() -> bool:
        now = {name: child.pid for name, child in house.children().items() if name in before}
        return now.keys() == before.keys() and not set(now.values()) & set(before.values())

    until(all_new)
    # The calls outlived both processes that could have answered them.
    said = hang_up(calls)
    assert (said["calls"]["ok"], lost_in(said["audio"])) == (4, 0)
    assert len(logged(house, "moved")) >= 4


def replaced(house: Appliance, name: str) -> None:
    """Tells a process to end, and returns when another has its place."""

    def child() -> psutil.Process | None:
        return house.children().get(name)

    until(child)
    leaving = child()
    assert leaving is not None
    leaving.send_signal(signal.SIGTERM)
    until(lambda: (now := child()) is not None and now.pid != leaving.pid)


@pytest.mark.trials
def test_a_hundred_hand_overs_lose_no_frame(lab: Lab, house: Appliance) -> None:
    calls = start_call(lab.client, house, "-n", "10", "--model", "echo", "--duration", "400")
    until(lambda: spread(house, 10))
    turns = cycle(("media-1", "media-2"))
    while len(logged(house, "moved")) < 100:
        replaced(house, next(turns))
        until(lambda: sorted(of_both(house), key=str) == [0, 10])
    said = hang_up(calls)
    moved = logged(house, "moved")
    away, whole = (sorted(line[key] for line in moved) for key in ("away_ms", "ms"))
    gaps = sorted(call["longest_gap_ms"] for call in said["per_call"])
    middle, last = len(moved) // 2, -1 - len(moved) // 100
    print(f"{len(moved)} hand-overs, {len(logged(house, 'a call stays'))} refused")
    print(f"nobody's for {away[middle]} ms (p50), {away[last]} ms (p99); whole {whole[middle]}, {whole[last]} ms")
    print(f"longest gaps of the calls {gaps} ms; the caller itself was late by {said['caller_late_ms']} ms")
    assert lost_in(said["audio"]) == 0
