"""A transceiver with a supervisor, and no core of its own, as a pod runs it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from calling import goes_on, hang_up, start_call
from observing import kept, revived
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab


@pytest.mark.needs_root
def test_calls_outlive_a_process_on_any_core_that_has_a_supervisor(lab: Lab, tmp_path: Path) -> None:
    house = Appliance(tmp_path, lab=lab)
    house.environment["transceiver"] = {"FIRSTHOP_TRANSCEIVER__SUPERVISED": "true"}
    with house:
        until(lambda: {"media-1", "media-spare"} <= house.children().keys())
        first = house.children()["media-1"]
        assert first.cpu_affinity() == sorted(os.sched_getaffinity(0))
        calls = start_call(lab.client, house, "-n", "2", "--model", "echo", "--duration", "600")
        until(lambda: kept(house, "media-1") == 2)
        first.kill()
        until(lambda: revived(house, "media-1") == 2)
        goes_on(house, "media-1")
        assert hang_up(calls)["calls"]["ok"] == 2
        assert house.children()["media-1"].pid != first.pid
