"""A transceiver host that is told to end while its processes die: no call is lost that could live."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from calling import hang_up, start_call
from observing import cores
from operating import held, sessions_at, until_all_is_well
from waiting import DEADLINE_S, until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root
LAB_TRANSCEIVERS = 2

REVIVED = ("firsthop_transceiver_revived_total", "taken_up")
DRAINING = ("firsthop_transceiver_draining",)
KEPT = ("firsthop_transceiver_kept_calls",)


def test_calls_outlive_a_crash_of_their_process_and_of_its_supervisor_during_a_drain(lab: Lab, tmp_path: Path) -> None:
    one = cores()[:1]
    with Appliance(tmp_path, lab=lab, transceiver_cores=one, cores=one, drain_s=120) as house:
        until_all_is_well(house, ("edge",), {1, 2})
        # There is nobody to take calls over, so that the drain lasts.
        house.processes["transceiver-2"].send_signal(signal.SIGTERM)
        assert house.processes["transceiver-2"].wait(DEADLINE_S) == 0
        calls = start_call(lab.client, house, "-n", "3", "--model", "echo", "--duration", "600")
        until(lambda: told(house, KEPT) == 3)

        # The process has just died when its supervisor is told to end.
        house.children()["media-1"].send_signal(signal.SIGKILL)
        house.processes["transceiver"].send_signal(signal.SIGTERM)
        until(lambda: told(house, REVIVED) == 3 and told(house, DRAINING) == 1)
        assert house.processes["transceiver"].poll() is None

        # The supervisor dies meanwhile. Its successor finds a process that drains, and leaves it alone.
        house.processes["transceiver"].send_signal(signal.SIGKILL)
        house.processes["transceiver"].wait()
        house.start("transceiver")
        draining = house.children()["media-1"].pid
        house.start("transceiver-2")
        until(lambda: sessions_at(house, "media-2", "transceiver-2") == 3)
        until(lambda: (now := house.children().get("media-1")) is not None and now.pid != draining)
        until(lambda: held(house) == [0, 3])
        assert hang_up(calls)["calls"]["ok"] == 3


def told(house: Appliance, metric: tuple[str, ...]) -> int:
    """A metric of the first host's process; -1 where it does not tell."""
    try:
        return int(house.metrics("media-1").get(metric, -1))
    except OSError:
        return -1
