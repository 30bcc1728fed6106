"""Hand-offs of models under calls of ``firsthop call``, by ``firsthop handoff``: the callers lose no frame."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from calling import goes_on, hang_up, start_call
from observing import cores
from waiting import DEADLINE_S, until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root

TAKEN_OVER = ("firsthop_transceiver_agent_handoffs_total", "taken_over")
CALLS = 3


def handoff(house: Appliance, *arguments: str) -> tuple[int, dict[str, Any]]:
    argv = [sys.executable, "-m", "firsthop", "handoff", *arguments, "--json", "-c", str(house.config_file)]
    process = house.edge.popen(argv, stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=DEADLINE_S)
    found: dict[str, Any] = json.loads(output)
    return process.returncode, found


def models(house: Appliance) -> list[str]:
    """The models of the calls that there are, as the API lists them."""
    request = Request(f"{house.url}/v1/realtime/calls", headers={"Authorization": f"Bearer {house.token}"})

    def listed() -> list[str]:
        with urlopen(request, timeout=DEADLINE_S) as response:
            found = json.load(response)
        return [] if found["has_more"] else [call["model"] for call in found["data"]]

    until(lambda: house.edge.inside(listed))
    return house.edge.inside(listed)


def logged(house: Appliance, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in house.log_file("transceiver").read_text().splitlines() if line[:1] == "{"]
    return [line for line in lines if line["event"] == event]


def test_callers_get_other_models_without_a_gap_and_keep_them_when_the_process_dies(lab: Lab, tmp_path: Path) -> None:
    with Appliance(tmp_path, lab=lab, transceiver_cores=cores()[:1]) as house:
        calls = start_call(lab.client, house, "-n", str(CALLS), "--model", "echo", "--duration", "120")
        until(lambda: len(logged(house, "media up")) == CALLS)
        goes_on(house, "media-1")
        call = logged(house, "media up")[0]["call"]
        code, said = handoff(house, call, "nobody")
        assert (code, said["stay"][0]["code"]) == (1, "model_not_found")
        assert handoff(house, "--from", "echo", "--to", "loopback") == (
            0,
            {"calls": CALLS, "handed_off": CALLS, "stay": [], "complete": True},
        )
        goes_on(house, "media-1")
        assert handoff(house, call, "echo")[0] == 0  # when its caller is silent, or after ten seconds
        goes_on(house, "media-1")
        assert house.metrics("media-1")[TAKEN_OVER] == CALLS + 1
        taken = [line["agent"] for line in logged(house, "another agent has the call")]
        assert taken == ["loopback"] * CALLS + ["echo"]
        said = hang_up(calls)
        assert said["calls"]["ok"] == CALLS
        assert said["audio"]["packets"]["lost"] == said["audio"]["packets"]["rejected"] == 0
        assert said["audio"]["packets"]["received"] > 0

        calls = start_call(lab.client, house, "-n", "1", "--model", "echo", "--duration", "120")
        until(lambda: len(logged(house, "media up")) == CALLS + 1)
        assert handoff(house, logged(house, "media up")[-1]["call"], "loopback")[0] == 0
        os.kill(house.children()["media-1"].pid, signal.SIGKILL)
        until(lambda: any(line.get("revived") for line in logged(house, "ready")))
        goes_on(house, "media-1")
        assert models(house) == ["loopback"]
        assert hang_up(calls)["calls"]["ok"] == 1
