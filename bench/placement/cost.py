"""The cost of placement itself: the time of a choice among ten thousand transceivers while their reports come, of
entering a report, and the bytes that reports are for a store."""

from __future__ import annotations

import random
import time
from typing import Any

import msgspec
import numpy as np

from bench.placement.strategies import first_reports
from bench.placement.world import REGIONS, make_world
from edge.placement.fleet import Fleet
from edge.placement.placer import Placer, Wanted
from edge.placement.score import POLICIES

__all__ = ["cost"]

_CALLS_A_SECOND = 100
_SECONDS = 20


def cost(seed: int, transceivers: int = 10_000) -> dict[str, Any]:
    """Microseconds of CPU time, and bytes. Every report comes once a second, calls at even distances between them."""
    world = make_world(transceivers, 1, seed)
    fleet, reports = Fleet(), first_reports(world)
    way_s = world.round_trip_ms[int(world.edge_region[0])][world.region] / 1000
    for i, report in enumerate(reports):
        fleet.put(report, 0.0, float(way_s[i]))
    placer = Placer(fleet, POLICIES["latency"], random.Random(seed))  # noqa: S311
    wanted = Wanted("all", region=REGIONS[int(world.edge_region[0])][0])
    between = len(reports) // _CALLS_A_SECOND
    choosing, entering = [], []
    for call in range(_CALLS_A_SECOND * _SECONDS):
        now = call / _CALLS_A_SECOND
        begin = call % _CALLS_A_SECOND * between
        began = time.thread_time_ns()
        for i in range(begin, begin + between):
            fleet.put(reports[i], now + 1.0, float(way_s[i]))
        entered = time.thread_time_ns()
        choice = next(placer.choices(wanted, now + 1.0))
        placer.asked(choice.id)
        placer.placed(choice.id)
        choosing.append(time.thread_time_ns() - entered)
        entering.append((entered - began) / between)
    chosen = np.array(choosing) / 1000
    return {
        "transceivers": len(reports),
        "choose_us": {f"p{q}": float(np.percentile(chosen, q)) for q in (50, 90, 99)},
        "report_us": float(np.median(entering)) / 1000,
        "report_bytes": float(np.mean([len(msgspec.msgpack.encode(report)) for report in reports])),
    }
