"""Whatever one caller sends on its data channels, the others lose no frame: the whole appliance in the lab."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from test_calls import finish, start_call
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab

OTHERS, SECONDS = 6, 4


@pytest.mark.parametrize("kind", ["misordered", "channels", "records"])
def test_a_caller_that_floods_its_channels_costs_the_others_no_frame(lab: Lab, appliance: Appliance, kind: str) -> None:
    script = str(Path(__file__).with_name("hostile_caller.py"))
    argv = [sys.executable, script, appliance.url, str(appliance.token_file), kind, str(SECONDS)]
    others = start_call(lab.client, appliance, "-n", str(OTHERS), "--model", "echo", "--duration", str(3 * SECONDS))
    until(lambda: appliance.metrics("transceiver")[("firsthop_transceiver_sessions",)] == OTHERS)
    transceiver = psutil.Process(appliance.processes["transceiver"].pid)
    before_s = sum(transceiver.cpu_times()[:2])
    flood = lab.client.popen(argv, stdout=subprocess.PIPE)
    said = finish(others)
    used_s = sum(transceiver.cpu_times()[:2]) - before_s
    output, _ = flood.communicate(timeout=60)
    assert flood.returncode == 0
    assert json.loads(output)["sent"] > 100 * SECONDS
    assert said["calls"]["ok"] == OTHERS
    assert said["audio"]["packets"]["lost"] == 0
    assert [call["frames"]["lost"] for call in said["per_call"]] == [0] * OTHERS
    # aiortc's own lists take a whole core for as long as the flood goes on.
    print(f"{used_s:.2f} s of CPU")
    assert used_s < SECONDS / 2
