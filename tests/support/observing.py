"""Readers of what a running appliance says of itself, in the form that tests ask about."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from bpf.verdicts import VERDICTS
from edge.xdp.pins import folder_of
from lab.appliance import Appliance
from runtime.config import load
from wire import keys, ufrag

STEERED = ("stun_steered", "flow_steered", "ssrc_steered")
OF_CALLS = (*STEERED, "flow_expressed")  # to workers, and past them
DROPPED = tuple(verdict.label for verdict in VERDICTS if verdict.kind == "dropped")


def xdp(appliance: Appliance) -> dict[tuple[str, str], int]:
    """(verdict, core) to packets."""
    samples = appliance.metrics("edge")
    found = {}
    for (name, *labels), value in samples.items():
        if name == "firsthop_rx_xdp_packets_total":
            core, verdict = sorted(labels)
            found[verdict, core] = int(value)
    return found


def received(appliance: Appliance, process: str, metric: str) -> dict[str, int]:
    return {key[1]: int(v) for key, v in appliance.metrics(process).items() if key[0] == metric}


def expressed(appliance: Appliance, process: str) -> dict[str, int]:
    """What became of the media that XDP brought past the workers to the socket of that transceiver process."""
    metrics = ("firsthop_rx_express_datagrams_total", "firsthop_rx_express_socket_datagrams_total")
    return {outcome: n for metric in metrics for outcome, n in received(appliance, process, metric).items()}


def moved(before: dict[Any, int], after: dict[Any, int]) -> dict[Any, int]:
    return {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def core_of(appliance: Appliance, call_id: str) -> int:
    return cores()[_route_of(appliance, call_id).slot % len(cores())]


def transceiver_of(appliance: Appliance, call_id: str) -> int:
    return _route_of(appliance, call_id).transceiver


def _route_of(appliance: Appliance, call_id: str) -> ufrag.Route:
    sealed = ufrag.ufrag_of_call(call_id)
    assert sealed is not None
    cluster = keys.load(appliance.config_file.parent / "cluster.toml")
    route = ufrag.open_sealed(sealed, cluster.ufrag)
    assert route is not None
    return route


def sessions_of(appliance: Appliance, process: str) -> int | None:
    """The number of calls of a transceiver process; None where it does not tell yet."""
    with suppress(OSError):
        return int(appliance.metrics(process)[("firsthop_transceiver_sessions",)])
    return None


def pins(appliance: Appliance) -> Path:
    return folder_of(load(appliance.config_file).edge)


def holders(appliance: Appliance) -> list[psutil.Process]:
    path = str(appliance.config_file.parent / "edge.holder")
    found = []
    for process in psutil.process_iter():
        try:
            if path in process.cmdline():
                found.append(process)
        except psutil.Error:
            pass
    return found


def at_work(appliance: Appliance) -> dict[str, int]:
    """Pids of the children that serve; the spare does not, and is called otherwise until it is ready."""
    serving = re.compile(r"worker-\d+|signaling")
    return {name: child.pid for name, child in appliance.children().items() if serving.fullmatch(name)}


def sessions(appliance: Appliance) -> list[int]:
    """The number of calls of ``media-1`` and ``media-2``; 0 where one does not tell."""
    return [sessions_of(appliance, f"media-{i}") or 0 for i in (1, 2)]


def revived(appliance: Appliance, process: str) -> int:
    """How many calls of the process before it this one has taken up."""
    with suppress(OSError):
        return int(appliance.metrics(process)[("firsthop_transceiver_revived_total", "taken_up")])
    return 0


def kept(appliance: Appliance, process: str) -> int:
    """How many of its calls are kept for the process after it."""
    return int(appliance.metrics(process)[("firsthop_transceiver_kept_calls",)])


def logged(house: Appliance, event: str, host: str = "transceiver") -> list[dict[str, Any]]:
    """What the transceivers of a host logged about that. Two processes that log at once may have theirs on one line,
    with the end of it after both."""
    text, decode = house.log_file(host).read_text(), json.JSONDecoder().raw_decode
    lines, at = [], 0
    while (at := text.find("{", at)) >= 0:
        try:
            line, at = decode(text, at)
        except ValueError:
            break  # it is being written
        lines.append(line)
    return [line for line in lines if line["event"] == event]
