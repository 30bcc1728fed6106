"""The kernel's threads behind a CPUMAP: they take datagrams from its queues and bring them to the sockets of their
cores.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

__all__ = ["bring_in_bulk"]


def bring_in_bulk(map_id: int, cpus: Collection[int]) -> None:
    """Has the threads of the map leave their core to its present process until that sleeps or its time is up
    (SCHED_BATCH).

    As they are made they interrupt the worker for every few datagrams, and two changes of process cost more than those.
    A core that has nothing else to do runs them at once, as before. Raises OSError where that is not allowed
    (CAP_SYS_NICE), or they are not to be seen.
    """
    wanted = {f"cpumap/{cpu}/map:{map_id}" for cpu in cpus}  # kernel/bpf/cpumap.c
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            if (name := (folder / "comm").read_text().strip()) in wanted:
                os.sched_setscheduler(int(folder.name), os.SCHED_BATCH, os.sched_param(0))
                wanted.discard(name)
    if wanted:
        raise FileNotFoundError(f"no process is called {', '.join(sorted(wanted))}")
