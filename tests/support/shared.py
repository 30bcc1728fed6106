"""An appliance that several tests share: whatever one did to it, the next finds it whole. And calls over all of its
transceivers, ``media-1`` and ``media-2``."""

from __future__ import annotations

import subprocess

from calling import goes_on, hang_up, start_call
from observing import cores, sessions_of
from waiting import until

from lab.appliance import Appliance, Place

__all__ = ["sessions", "spread_calls", "whole"]

_TRIES = 10


def whole(appliance: Appliance, *media: int) -> Appliance:
    """The appliance, when all of its processes are in their places and it holds no call. ``media`` are the ids of its
    transceivers where each has a core."""
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


def sessions(appliance: Appliance) -> list[int]:
    """The number of calls of each transceiver; 0 where one does not tell."""
    return [sessions_of(appliance, f"media-{i}") or 0 for i in (1, 2)]


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
