"""The heartbeats of children: each counts in a place of shared memory while its loop turns, and its supervisor watches
the count.

The loop that matters counts by itself, with no thread beside it, so one that hangs stops counting. The memory is in the
store, so the next supervisor goes on reading it.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import time
from collections.abc import Mapping
from typing import Never

from runtime.scrape import Unavailable
from runtime.supervision.store import Store

__all__ = ["EVERY_S", "HEALTH_PATH", "Beat", "Beats"]

EVERY_S = 1.0  # a child counts at least as often
HEALTH_PATH = "/healthz"
_FRESH_S = 5.0  # WatchdogSec= of the units
_NAME = "beats"
_PLACES = 512
_COUNT = struct.Struct("@Q")


class Beat:
    """The child's end: the ``place`` in what is behind ``fd``; with a descriptor of -1 nobody looks."""

    def __init__(self, fd: int, place: int) -> None:
        self._memory = mmap.mmap(fd, _PLACES * _COUNT.size) if fd >= 0 else None
        self._at = place * _COUNT.size
        self._turned_at = time.monotonic()

    def __call__(self) -> None:
        """Counts: the loop turns."""
        if self._memory is not None:
            (count,) = _COUNT.unpack_from(self._memory, self._at)
            _COUNT.pack_into(self._memory, self._at, count + 1 & 0xFFFFFFFFFFFFFFFF)

    async def forever(self) -> Never:
        """Counts while the event loop turns."""
        while True:
            self()
            self._turned_at = time.monotonic()
            await asyncio.sleep(EVERY_S)

    def health(self, _: Mapping[str, str]) -> bytes:
        """The page at HEALTH_PATH of a process that runs ``forever``, for whoever restarts what hangs and is no parent
        of it. Raises Unavailable where the loop has not turned for some seconds."""
        still_s = time.monotonic() - self._turned_at
        if still_s > _FRESH_S:
            raise Unavailable(f"the event loop has not turned for {still_s:.0f} s")
        return b'{"alive": true}\n'


class Beats:
    """The supervisor's end; ``fd`` is for the children. ``lasting`` says that an earlier supervisor's children count in
    it too."""

    def __init__(self, store: Store) -> None:
        fd = store.take(_NAME)
        self.lasting = fd is not None
        if fd is None:
            fd = os.memfd_create("firsthop-beats")
            os.ftruncate(fd, _PLACES * _COUNT.size)
            store.keep(_NAME, fd)
        self.fd = fd
        self._memory = mmap.mmap(fd, _PLACES * _COUNT.size, prot=mmap.PROT_READ)

    def count(self, place: int) -> int:
        """A number that differs whenever that child has counted."""
        count: int = _COUNT.unpack_from(self._memory, place * _COUNT.size)[0]
        return count
