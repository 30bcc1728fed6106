"""The speed of a core from one moment to the next. A virtual machine shares its core with strangers: for a fifth of a
second it may run at half its speed, which no figure of processes shows, and which no server can make up for.

A process that goes before all others on the core does the same small work a hundred times a second, half a percent of
the core, and takes the time.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from statistics import mean, median
from types import TracebackType

from bench.harness.conditions import pin

__all__ = ["Speed", "slowest"]

SLICE_S = 0.2
_EVERY_S = 0.01
_WORK = 1000
Took = tuple[float, float]


class Speed:
    """Watches a core while it is open. ``between(begin, end)``, afterwards, is how many times longer than usual work
    took in the slowest fifth of a second of that time, in seconds of ``time.time``; 1 where it is not known."""

    def __init__(self, cpu: int) -> None:
        self._cpu = cpu
        self._took: list[Took] = []

    def __enter__(self) -> Speed:
        self._watch = subprocess.Popen(  # noqa: S603
            pin([sys.executable, "-m", "bench.harness.speed"], self._cpu),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        said, _ = self._watch.communicate()  # it ends when its input does
        with suppress(ValueError):
            self._took = [(at, took) for at, took in json.loads(said)]

    def between(self, begin: float, end: float) -> float:
        """See the class."""
        return slowest(self._took, begin, end)


def slowest(took: list[Took], begin: float, end: float) -> float:
    """How many times longer than usual work took in the slowest fifth of a second between ``begin`` and ``end``:
    ``took`` has the time of each, and how long it took. 1 where nothing is known."""
    slices: dict[int, list[float]] = {}
    for at, seconds in took:
        if begin <= at < end:
            slices.setdefault(int((at - begin) / SLICE_S), []).append(seconds)
    usual = median(seconds for _, seconds in took) if took else 0.0
    return max((mean(slice) / usual for slice in slices.values()), default=1.0)


def main() -> None:
    """Watches until standard input ends, and prints when each piece of work was done and the seconds that it took."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    took: list[Took] = []
    while not select.select([0], [], [], _EVERY_S)[0]:
        began = time.perf_counter()
        for _ in range(_WORK):
            pass
        took.append((time.time(), time.perf_counter() - began))
    print(json.dumps(took))


if __name__ == "__main__":
    main()
