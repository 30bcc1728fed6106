"""Calls that ``firsthop call`` places, and what it reports of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from waiting import until

from lab.appliance import Appliance, Place

RX_AUDIO = ("firsthop_rx_transceiver_datagrams_total", "audio")


def start_call(place: Place, appliance: Appliance, *options: str, url: str = "") -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "firsthop", "call", url or appliance.url, "--json", "--quiet"]
    argv += ["--token-file", str(appliance.token_file), *options]
    return place.popen(argv, stdout=subprocess.PIPE)


def finish(call: subprocess.Popen[bytes], expect: int = 0, within_s: float = 120) -> dict[str, Any]:
    output, _ = call.communicate(timeout=within_s)
    assert call.returncode == expect, output.decode()
    said: dict[str, Any] = json.loads(output)
    return said


def hang_up(call: subprocess.Popen[bytes], expect: int = 0) -> dict[str, Any]:
    """The same, of calls that end now instead of after their ``--duration``."""
    call.terminate()
    return finish(call, expect)


def lost_in(audio: dict[str, Any]) -> int:
    """Frames that did not come back, and packets that did not come: of all calls, or of one."""
    return int(audio["frames"]["lost"] + audio["packets"]["lost"])


def goes_on(appliance: Appliance, *processes: str, frames: int = 50) -> None:
    """Returns when each of these transceiver processes has heard that many more frames of audio."""

    def heard() -> list[float]:
        return [appliance.metrics(process)[RX_AUDIO] for process in processes]

    before = heard()
    until(lambda: all(now - was >= frames for now, was in zip(heard(), before, strict=True)))


def flow_gone(appliance: Appliance) -> bool:
    return appliance.metrics("edge")[("firsthop_xdp_flows",)] == 0


def kill_the_supervisor(appliance: Appliance) -> None:
    appliance.processes["edge"].send_signal(signal.SIGKILL)
    appliance.processes["edge"].wait()
