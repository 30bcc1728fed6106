"""The resources that a server uses, by process: nanoseconds of CPU time as the scheduler counts them, and resident
memory.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from bench.harness.cpu import TICK, tree

__all__ = ["ServerWatch", "core_busy", "processes", "resident"]

BPF_MAP_TYPE_CPUMAP = "16"


def processes(roots: Mapping[int, str], mark: tuple[str, str] | None = None) -> dict[int, str]:
    """Process id to name of these processes, of what they started, and so on. ``mark`` is an environment variable and
    its value that tells other processes of the same server, which have another parent. The kernel's threads that take
    packets from XDP for one of them are there too, as ``cpumap``."""
    found = {}
    for root, name in roots.items():
        with suppress(psutil.NoSuchProcess):
            found.update({pid: name if pid == root else "" for pid in tree(root)})
    threads: dict[str, list[int]] = {}
    for pid in psutil.pids() if mark else ():
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.name().startswith("cpumap/"):  # cpumap/<core>/map:<id>
                threads.setdefault(process.name().rpartition(":")[2], []).append(pid)
            elif mark and process.environ().get(mark[0]) == mark[1]:
                found.setdefault(pid, "")
    maps = {number for pid in found for number in _cpumaps(pid)} if threads else set()
    names = {pid: name or _name(pid) for pid, name in found.items()}
    return names | {pid: "cpumap" for number in maps for pid in threads.get(number, ())}


def resident(pids: Iterable[int]) -> int:
    """Resident bytes; what processes share is counted once for each."""
    total = 0
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            total += psutil.Process(pid).memory_info().rss
    return total


def core_busy(cpu: int) -> float:
    """The seconds since the start of the machine for which a core was not idle, up to a constant: whoever used it,
    interrupts and the kernel's threads included."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{cpu} "))
    # user nice system IDLE IOWAIT irq softirq STEAL: idle and iowait are exact, what is busy is sampled.
    return time.monotonic() - sum(int(line.split()[i]) for i in (4, 5, 8)) / TICK


class ServerWatch:
    """The usage of a server from the making of this object on."""

    def __init__(self, processes: Callable[[], dict[int, str]], cpu: int) -> None:
        self._processes = processes
        self._cpu = cpu
        self._before = _nanoseconds(processes())
        self._began, self._busy = time.monotonic(), core_busy(cpu)

    def usage(self) -> dict[str, float | dict[str, float]]:
        """Seconds of ``wall`` time, of CPU time of the ``server``, ``by`` the names of its processes, and of its core
        that was busy; and ``rss`` in bytes."""
        wall, busy = time.monotonic() - self._began, core_busy(self._cpu) - self._busy
        names = self._processes()
        by: Counter[str] = Counter()
        for pid, used in _nanoseconds(names).items():
            by[names[pid]] += used - self._before.get(pid, 0)
        seconds = {name: round(used / 1e9, 5) for name, used in sorted(by.items())}
        return {
            "wall": round(wall, 4),
            "server": round(sum(by.values()) / 1e9, 5),
            "by": seconds,
            "core": round(busy, 4),
            "rss": resident(names),
        }


def _nanoseconds(pids: Iterable[int]) -> dict[int, int]:
    """The CPU time of each process and its threads that live."""
    found = {}
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            tasks = Path(f"/proc/{pid}/task").iterdir()
            found[pid] = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
    return found


def _cpumaps(pid: int) -> Iterator[str]:
    """The ids of the CPUMAPs that a process holds."""
    for fd in Path(f"/proc/{pid}/fdinfo").glob("*"):
        with suppress(OSError, ValueError):
            fields = dict(line.split(":", 1) for line in fd.read_text().splitlines() if ":" in line)
            if fields.get("map_type", "").strip() == BPF_MAP_TYPE_CPUMAP:
                yield fields["map_id"].strip()


def _name(pid: int) -> str:
    """The name that the process has given itself; a Python process without one is called after its module."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        argv = process.cmdline()
        return argv[argv.index("-m") + 1] if process.name() == "python" and "-m" in argv[:-1] else str(process.name())
    return "gone"
