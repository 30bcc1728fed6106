"""The use of the processor by the relay, the backend, the load, and everything else on the machine.

A process is charged for the interrupts that come while it runs, and nobody for those that come while none does; the
threads behind a CPUMAP are the kernel's own. So a relay's process time alone can hide what it costs. The machine's
busy time cannot: it is what the clock says less what the idle task had, which the kernel counts exactly.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Usage", "Watch", "others", "seconds_of", "tree"]

TICK = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1
LOOK_S = 0.25
KERNEL = 2  # kthreadd, the parent of all the kernel's threads


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds: of the clock, of all cores together and of the load's core that were not idle, and of processes."""

    wall: float
    busy: float
    load_core: float
    relay: float
    backend: float
    load: float
    others: float

    @property
    def machine(self) -> float:
        """The machine's work for the traffic, without the backend's part. The load's part, which is the same for every
        relay, is in it, because the kernel runs part of the receiving side in the sender's time."""
        return self.busy - self.backend - self.others


class Watch:
    """The time that is used between the making of this object and ``usage``. Making it is quick: a load is running, on
    this core."""

    def __init__(self, groups: Mapping[str, Iterable[int]], load_cpu: int) -> None:
        """``groups`` are the process ids of ``relay``, ``backend`` and ``load``, those that these started included."""
        self._groups = groups
        self._load_cpu = load_cpu
        self._before = _processes()
        self._began, self._unused = time.monotonic(), _unused(load_cpu)

    def usage(self) -> Usage:
        """The time of processes that have ended meanwhile has become their parents'."""
        wall = time.monotonic() - self._began
        everywhere, there = (now - before for now, before in zip(_unused(self._load_cpu), self._unused, strict=True))
        after = _processes()
        total = sum(after.values()) - sum(self._before.values())
        ours = {
            name: sum(after.get(pid, 0.0) - self._before.get(pid, 0.0) for pid in pids)
            for name, pids in self._groups.items()
        }
        return Usage(wall, CORES * wall - everywhere, wall - there, others=total - sum(ours.values()), **ours)


def others() -> float:
    """The share of a core that other processes take now, while nothing is measured."""
    before = sum(_processes().values())
    time.sleep(LOOK_S)
    return (sum(_processes().values()) - before) / LOOK_S


def seconds_of(pids: Iterable[int]) -> float:
    """CPU time of these processes and of those that they waited for."""
    total = 0.0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            total += _stat(pid)[1]
    return total


def tree(root: int) -> list[int]:
    """A process and those that it started, and so on."""
    return [root, *(child.pid for child in psutil.Process(root).children(recursive=True))]


def _unused(cpu: int) -> tuple[float, float]:
    """The seconds for which all cores together, and core ``cpu``, had nothing to do or were lent to another machine."""
    lines = Path("/proc/stat").read_text().splitlines()
    rows = (lines[0], next(line for line in lines if line.startswith(f"cpu{cpu} ")))
    # user nice system IDLE IOWAIT irq softirq STEAL: idle and iowait are exact, what is busy is sampled.
    of_all, of_one = (sum(int(row.split()[i]) for i in (4, 5, 8)) / TICK for row in rows)
    return of_all, of_one


def _processes() -> dict[int, float]:
    """CPU seconds of every process that is not the kernel's own."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
                parent, seconds = _stat(int(name))
                if parent != KERNEL and int(name) != KERNEL:
                    found[int(name)] = seconds
    return found


def _stat(pid: int) -> tuple[int, float]:
    """The parent, and the seconds of the process and of the children that it waited for."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        columns = file.read().rpartition(b")")[2].split()
    return int(columns[1]), sum(map(int, columns[11:15])) / TICK
