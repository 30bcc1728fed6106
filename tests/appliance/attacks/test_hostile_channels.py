"""Hostile data channels in the lab: whatever one caller sends on its own, the others lose no frame."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from calling import hang_up, start_call
from paths import SUPPORT
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab

OTHERS, SECONDS = 6, 4
OVERFLOW = ("firsthop_rx_transceiver_datagrams_total", "overflow")

pytestmark = pytest.mark.alone

_LONG = [pytest.param(kind, marks=pytest.mark.trials) for kind in ("channels", "records")]


@pytest.mark.parametrize("kind", ["misordered", *_LONG])
def test_a_caller_that_floods_its_channels_costs_the_others_no_frame(lab: Lab, appliance: Appliance, kind: str) -> None:
    script = str(SUPPORT / "hostile_caller.py")
    argv = [sys.executable, script, appliance.url, str(appliance.token_file), kind, str(SECONDS)]
    others = start_call(lab.client, appliance, "-n", str(OTHERS), "--model", "echo", "--duration", "120")
    until(lambda: appliance.metrics("transceiver")[("firsthop_transceiver_sessions",)] == OTHERS)
    before = appliance.metrics("transceiver")[OVERFLOW]
    flood = lab.client.popen(argv, stdout=subprocess.PIPE)
    output, _ = flood.communicate(timeout=120)
    said = hang_up(others)
    assert flood.returncode == 0
    sent = json.loads(output)["sent"]
    assert sent > 100 * SECONDS
    assert said["calls"]["ok"] == OTHERS
    assert said["audio"]["packets"]["lost"] == 0
    assert [call["frames"]["lost"] for call in said["per_call"]] == [0] * OTHERS
    # The loop was never away for long enough that the flood would have piled up before it.
    print("longest gaps:", [call["longest_gap_ms"] for call in said["per_call"]], "ms")
    assert appliance.metrics("transceiver")[OVERFLOW] - before < sent / 2
