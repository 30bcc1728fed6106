"""One measurement: an appliance on given cores, so many calls, and the CPU time that its processes took for them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from bench.calls.measure import Saying
from bench.calls.usage import ServerWatch, processes
from bench.harness.conditions import pin
from bench.harness.cpu import others
from bench.harness.processes import await_quiet
from lab.appliance import Appliance, ApplianceError, Loopback
from lab.network import Lab

__all__ = ["Layout", "ScaleError", "measure"]

WARM_UP_S = 1.5
UP_S, QUIET_S = 60.0, 0.3
_NUMBERED = re.compile(r"-\d+$")


class ScaleError(RuntimeError):
    """The error that the appliance or the calls did not come up; the text says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The cores of workers, transceivers and load, one process each, and the way of media: ``auto`` past the workers
    where it can, or ``off``."""

    workers: tuple[int, ...]
    transceivers: tuple[int, ...]
    load: tuple[int, ...]
    express: str

    @property
    def name(self) -> str:
        return f"{len(self.workers)} + {len(self.transceivers)}"


def measure(
    directory: Path, lab: Lab | None, layout: Layout, voice: Path, calls: int, seconds: float
) -> dict[str, Any]:
    """Has each transceiver hold about ``calls`` calls, which are passed on. Raises ScaleError."""
    settings: dict[str, Any] = {"cores": list(layout.workers), "placement": "spread", "connections_per_address": 0}
    try:
        with Appliance(
            directory,
            lab=lab,
            one_host=True,
            agent="echo",
            transceiver_cores=layout.transceivers,
            express=layout.express if lab else "off",
            **settings,
        ) as appliance:
            _pin(appliance, layout)
            return _measured(appliance, lab, layout, voice, calls * len(layout.transceivers), seconds)
    except ApplianceError as error:
        raise ScaleError(str(error)) from None


def _pin(appliance: Appliance, layout: Layout) -> None:
    """Keeps what has no core of its own, such as supervisors and signaling, on the cores of its side. Waits until what
    begins with the appliance is done."""
    sides = {"edge": layout.workers, "transceiver": layout.transceivers}
    for side, cores in sides.items():
        root = psutil.Process(appliance.processes[side].pid)
        for process in (root, *root.children(recursive=True)):
            if len(process.cpu_affinity()) > 1:
                process.cpu_affinity(list(cores))
        if not await_quiet(appliance.processes[side], quiet_s=QUIET_S, within_s=UP_S, idle_s=0.02):
            raise ScaleError(f"{side} did not come to rest")


def _measured(
    appliance: Appliance, lab: Lab | None, layout: Layout, voice: Path, calls: int, seconds: float
) -> dict[str, Any]:
    place = lab.client if lab else Loopback()
    before = others()
    plan = {
        "protocol": "firsthop",
        "where": {"host": appliance.edge.address, "url": appliance.url, "token": appliance.token, "agent": "echo"},
        "channel": False,
        "host": place.address,
        "warm_up": WARM_UP_S,
        "seconds": seconds,
        "spread": True,
        "pcm": None,
        "together": True,
    }
    mine = {appliance.processes[name].pid: name for name in ("edge", "transceiver")}
    found = partial(processes, mine, ("FIRSTHOP_CONFIG_FILE", str(appliance.config_file)))
    counts = [calls // len(layout.load) + (i < calls % len(layout.load)) for i in range(len(layout.load))]
    with ExitStack() as stack:
        loads = []
        for core, count in zip(layout.load, counts, strict=True):
            argv = pin([sys.executable, "-m", "bench.calls.load"], core)
            load = stack.enter_context(_load(place.popen(argv, **_PIPES)))
            _say(load, json.dumps({**plan, "calls": [asdict(Saying(str(voice)))] * count}))
            loads.append(load)
        _await(loads, "ready")
        spread = {n: appliance.metrics(f"media-{n + 1}") for n in range(len(layout.transceivers))}
        for load in loads:
            _say(load, "go")
        _await(loads, "begin")
        watch = ServerWatch(found, layout.workers[0])
        _await(loads, "end")
        usage = watch.usage()
        heard = [json.loads(_line(load)) for load in loads]
    by: dict[str, float] = defaultdict(float)
    for name, spent in usage["by"].items():  # type: ignore[union-attr]
        by[_NUMBERED.sub("", name)] += spent
    ms = 1000 / float(usage["wall"]) / calls  # type: ignore[arg-type]
    sent = sum(one["sent"] for one in heard)
    return {
        "calls": calls,
        "per_transceiver": [int(found[("firsthop_transceiver_sessions",)]) for found in spread.values()],
        "cpu_ms": round(float(usage["server"]) * ms, 3),  # type: ignore[arg-type]
        "by": {name: round(spent * ms, 3) for name, spent in sorted(by.items())},
        "trip_p50": max(one["round_trip_ms"]["p50"] or 0.0 for one in heard),
        "trip_p99": max(one["round_trip_ms"]["p99"] or 0.0 for one in heard),
        "loss": round(sum(one["lost"] for one in heard) / max(1, sent), 5),
        "others": round(before, 3),
    }


_PIPES: dict[str, Any] = {
    "stdin": subprocess.PIPE,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
    "text": True,
}


@contextmanager
def _load(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    with process:
        try:
            yield process
        finally:
            process.kill()


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _await(loads: Sequence[subprocess.Popen[str]], mark: str) -> None:
    for load in loads:
        if (line := _line(load)) != mark:
            raise ScaleError(line)


def _line(process: subprocess.Popen[str]) -> str:
    """The next line. Raises ScaleError at the end."""
    assert process.stdout is not None
    assert process.stderr is not None
    if line := process.stdout.readline().strip():
        return line
    raise ScaleError((process.stderr.read().strip().splitlines() or ["the load ended early"])[-1])
