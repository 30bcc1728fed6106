"""Orphans in a container: whose parent has died there is a child of its first process, which alone can reap it.

On a host that is init's work. A service that is a container's first process has children that it never started, such as
the engine of a transceiver that crashed; once they end, each would stay a zombie, and keep its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

__all__ = ["reap", "zombies"]

_EVERY_S = 2.0


def zombies() -> set[int]:
    """The numbers of this process's children that have ended and that nobody has reaped."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is gone
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                found.add(int(process.name))
    return found


async def reap(every_s: float = _EVERY_S) -> NoReturn:
    """Reaps orphans, and never returns. Whoever started a process in here waits for it by means of the loop, or of a
    thread, and is to hear how it ended: so only who was there already at the look before is taken to be an orphan."""
    before: set[int] = set()
    while True:
        now = zombies()
        _reaped(before & now)
        before = now
        await asyncio.sleep(every_s)


def _reaped(numbers: Iterable[int]) -> None:
    for number in numbers:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(number, os.WNOHANG)
