"""Calls come and go for a long time, and nothing is left of them: no memory, descriptor, thread, session or flow."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from calling import finish, flow_gone, start_call
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab

# SOAK_MINUTES of SOAK_CALLS at once; a call lives half a minute.
MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
CALLS = int(os.environ.get("SOAK_CALLS", "40"))
CALL_S = 30
GROWTH = 1.05


class Watched:
    """The resources that a process holds."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self.descriptors, self.threads = process.num_fds(), process.num_threads()
        self.rss: list[int] = []

    def look(self) -> None:
        self.rss.append(self.process.memory_info().rss)


def settled(watched: Watched, what: Callable[[psutil.Process], int], before: int) -> None:
    until(lambda: what(watched.process) <= before)


def soak(lab: Lab, appliance: Appliance, minutes: float, calls: int, call_s: float, every_s: float) -> list[Watched]:
    """Watched from when half a minute, or an eighth, of it has gone."""
    transceiver = psutil.Process(appliance.processes["transceiver"].pid)
    # What is imported, or allocated once, with the first call is not a leak.
    finish(start_call(lab.client, appliance, "-n", "4", "--duration", "2"))
    until(lambda: flow_gone(appliance))
    everybody = [Watched(process) for process in (transceiver, appliance.children()["worker-0"])]
    total = round(60 * minutes / call_s * calls)
    options = ("-n", str(total), "--rate", str(calls / call_s), "--duration", str(call_s), "--model", "parrot")
    call = start_call(lab.client, appliance, *options)
    began = time.monotonic()
    while call.poll() is None and time.monotonic() - began < 60 * minutes:
        time.sleep(every_s)
        for watched in everybody:
            watched.look()
    said = finish(call, within_s=60 * minutes + 240)
    assert said["calls"] == {"placed": total, "ok": total, "failed": 0, "interrupted": 0}
    until(lambda: flow_gone(appliance))
    until(lambda: appliance.metrics("transceiver")[("firsthop_transceiver_sessions",)] == 0)
    for watched in everybody:
        settled(watched, psutil.Process.num_fds, watched.descriptors)
        settled(watched, psutil.Process.num_threads, watched.threads)
    return everybody


@pytest.mark.needs_root
def test_calls_that_come_and_go_leave_nothing(lab: Lab, tmp_path: Path) -> None:
    with Appliance(tmp_path, lab=lab, cores=[0]) as appliance:
        soak(lab, appliance, minutes=0.2, calls=8, call_s=2, every_s=1)


@pytest.mark.needs_root
@pytest.mark.trials
def test_memory_is_flat_for_an_hour(lab: Lab, tmp_path: Path) -> None:
    with Appliance(tmp_path, lab=lab, cores=[0]) as appliance:
        everybody = soak(lab, appliance, MINUTES, CALLS, CALL_S, every_s=10)
        for watched in everybody:
            # The first eighth fills buffers, tables and free lists.
            rss = watched.rss[len(watched.rss) // 8 :]
            quarter = max(1, len(rss) // 4)
            first, last = statistics.median(rss[:quarter]), statistics.median(rss[-quarter:])
            print(f"{watched.process.name()}: {first / 1e6:.1f} MB, {last / 1e6:.1f} MB at the end")
            assert last <= GROWTH * first
