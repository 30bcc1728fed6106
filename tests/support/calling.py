"""An appliance that is whole, the calls that ``firsthop call`` places there, and what it reports of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from observing import cores, sessions, sessions_of
from waiting import until

from lab.appliance import Appliance, Place

_TRIES = 10
_placed: list[subprocess.Popen[bytes]] = []
RX_AUDIO = ("firsthop_rx_transceiver_datagrams_total", "audio")


def whole(appliance: Appliance, *media: int) -> Appliance:
    """The appliance, when all of its processes are in their places and it holds no call. ``media`` are the ids of its
    transceivers where each has a core. Calls that a failed test left are hung up, so that the next ones do not fail
    for it."""
    while _placed:
        with _placed.pop() as left:  # which closes its pipe
            left.terminate()
    names = {"signaling", "worker-spare", *(f"worker-{i}" for i in range(len(cores())))}
    if media:
        names |= {"media-spare", *(f"media-{i}" for i in media)}
    for name in ("transceiver", "edge"):
        if name not in appliance.processes or appliance.processes[name].poll() is not None:
            appliance.start(name)
    appliance.wait_ready()
    until(lambda: names <= appliance.children().keys())
    for name in [f"media-{i}" for i in media] or ["transceiver"]:
        until(lambda name=name: sessions_of(appliance, name) == 0)
    return appliance


def start_call(place: Place, appliance: Appliance, *options: str, url: str = "") -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "firsthop", "call", url or appliance.url, "--json", "--quiet"]
    argv += ["--token-file", str(appliance.token_file), *options]
    _placed.append(place.popen(argv, stdout=subprocess.PIPE))
    return _placed[-1]


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


def spread_calls(place: Place, appliance: Appliance, n: int) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Places so many calls, which ``hang_up`` ends. Returns them when all of them are up, and how many each transceiver
    has, which is at least one. A transceiver that a busy machine kept waiting is passed over for a while, so they may
    not be spread evenly."""
    before, flows = sessions(appliance), _flows(appliance)
    for _ in range(_TRIES):
        calls = start_call(place, appliance, "-n", str(n), "--model", "echo", "--duration", "600")
        until(lambda: _flows(appliance) == flows + n and sum(sessions(appliance)) == sum(before) + n)
        has = [now - was for now, was in zip(sessions(appliance), before, strict=True)]
        if all(has):
            goes_on(appliance, "media-1", "media-2")
            return calls, has
        hang_up(calls)
        until(lambda: _flows(appliance) == flows and sessions(appliance) == before)
    raise AssertionError("one transceiver gets no calls")


def _flows(appliance: Appliance) -> int:
    return int(appliance.metrics("edge")[("firsthop_xdp_flows",)])
