"""An appliance that several tests share: whatever one did to it, the next finds it whole."""

from __future__ import annotations

from observing import cores, sessions_of
from waiting import until

from lab.appliance import Appliance

__all__ = ["whole"]


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
