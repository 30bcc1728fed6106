"""Calls that ``firsthop call`` places, and what it reports of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from lab.appliance import Appliance, Place


def start_call(place: Place, appliance: Appliance, *options: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "firsthop", "call", appliance.url, "--json", "--quiet"]
    argv += ["--token-file", str(appliance.token_file), *options]
    return place.popen(argv, stdout=subprocess.PIPE)


def finish(call: subprocess.Popen[bytes], expect: int = 0, within_s: float = 120) -> dict[str, Any]:
    output, _ = call.communicate(timeout=within_s)
    assert call.returncode == expect, output.decode()
    said: dict[str, Any] = json.loads(output)
    return said


def flow_gone(appliance: Appliance) -> bool:
    return appliance.metrics("edge")[("firsthop_xdp_flows",)] == 0


def kill_the_supervisor(appliance: Appliance) -> None:
    appliance.processes["edge"].send_signal(signal.SIGKILL)
    appliance.processes["edge"].wait()
