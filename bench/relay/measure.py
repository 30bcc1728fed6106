"""One measurement: a relay that has just been started, a load, and who used the processor meanwhile."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from bench.harness.conditions import LOAD_CPU, pin
from bench.harness.cpu import Watch, tree
from bench.relay.relays import CLIENTS_MAC, PORT, RELAYS, RelayError, Running, Site

__all__ = ["Point", "measure", "saturation", "worker_memory"]

WARM_UP_S = 0.5
PATIENCE_S = 60.0
# Saturation is looked for from the first rate in steps of this factor, a short load each.
RAMP_FROM, RAMP_STEP, RAMP_STEPS, RAMP_SECONDS, RAMP_FLOWS = 40_000, 1.3, 12, 0.7, 100


@dataclass(frozen=True, slots=True)
class Point:
    """The load that is offered: datagrams a second over all flows."""

    rate: int
    flows: int


def measure(site: Site, relay: str, point: Point, seconds: float) -> dict[str, Any]:
    """The fate of the load's datagrams, and seconds of CPU time, as plain values."""
    with RELAYS[relay](site) as running:
        return _load(site, running, point, seconds, greet=True)


def saturation(site: Site, relay: str) -> dict[str, Any]:
    """The most that a relay brings there and back a second, found by offering more until it brings no more. Where the
    load's core was full by then, more could not be offered or echoed, and the limit is not the relay's."""
    steps: list[dict[str, float]] = []
    over = 0
    with RELAYS[relay](site) as running:
        for i in range(RAMP_STEPS):
            point = Point(round(RAMP_FROM * RAMP_STEP**i), RAMP_FLOWS)
            one = _load(site, running, point, RAMP_SECONDS, greet=i == 0)
            load, cpu = one["load"], one["cpu"]
            offered, achieved = round(load["sent"] / load["seconds"]), round(load["received"] / load["seconds"])
            shares = {name: round(cpu[name] / cpu["wall"], 3) for name in ("load_core", "others")}
            steps.append({"wanted": point.rate, "offered": offered, "achieved": achieved, **shares})
            # Twice, because once may be somebody else's doing.
            over = over + 1 if offered < 0.9 * point.rate or achieved < 0.75 * offered else 0
            if over == 2:
                break
    best = max(steps, key=lambda step: step["achieved"])
    return {
        "achieved": best["achieved"],
        "limited_by": "load" if best["load_core"] > 0.97 else "relay",
        "others": max(step["others"] for step in steps),
        "steps": steps,
    }


def worker_memory(site: Site, flows: int) -> dict[str, int]:
    """The resident bytes of firsthop's worker that has relayed for so many flows."""
    with RELAYS["firsthop"](site) as running:
        _load(site, running, Point(20_000, flows), 1.0, greet=True)
        children = psutil.Process(running.relay[0]).children()
        worker = next(child for child in children if child.name() == "worker-0")
        return {"flows": flows, "worker_rss_bytes": worker.memory_info().rss}


def _load(site: Site, running: Running, point: Point, seconds: float, *, greet: bool) -> dict[str, Any]:
    argv = [str(site.program("load")), "--interface", "to-edge"]
    argv += ["--from", site.clients, "--from-mac", CLIENTS_MAC, "--to", running.to or site.lab.edge.address]
    argv += ["--port", str(PORT), "--mac", site.edge_mac]
    argv += ["--flows", str(point.flows), "--rate", str(point.rate)]
    argv += ["--warm-up", str(WARM_UP_S), "--seconds", str(seconds), "--head", running.head.hex()]
    if greet and running.greetings:
        greetings = site.directory / "greetings"
        greetings.write_bytes(running.greetings(point.flows))
        argv += ["--greetings", str(greetings)]
    groups = {"relay": _trees(running.relay), "backend": _trees(running.backend)}
    load = site.lab.client.popen(
        pin(argv, LOAD_CPU), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with load:
        try:
            _await(load, "ready")
            watch = Watch({**groups, "load": [load.pid]}, LOAD_CPU)
            _await(load, "done")
            usage = watch.usage()
            text = _line(load)
            load.wait(PATIENCE_S)
        finally:
            load.kill()
    cpu = {name: round(value, 4) for name, value in {**asdict(usage), "machine": usage.machine}.items()}
    return {"load": json.loads(text), "cpu": cpu}


def _trees(roots: tuple[int, ...]) -> list[int]:
    return [pid for root in roots for pid in tree(root)]


def _await(load: subprocess.Popen[str], mark: str) -> None:
    if (line := _line(load)) != mark:
        raise RelayError(f"the load ended early: {line}")


def _line(load: subprocess.Popen[str]) -> str:
    """The next line of what it says. Raises RelayError at the end."""
    assert load.stdout is not None
    assert load.stderr is not None
    if not (line := load.stdout.readline().strip()):
        raise RelayError(f"the load ended early: {load.stderr.read().strip()}")
    return line
