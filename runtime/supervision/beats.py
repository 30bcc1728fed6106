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
from typing import Never

from runtime.supervision.store import Store

__all__ = ["EVERY_S", "Beat", "Beats"]

EVERY_S = 1.0  # a child counts at least as often
_NAME = "beats"
_PLACES = 512
_COUNT = struct.Struct("@Q")


class Beat:
    """The child's end: the ``place`` in what is behind ``fd``; with a descriptor of -1 nobody looks."""

    def __init__(self, fd: int, place: int) -> None:
        self._memory = mmap.mmap(fd, _PLACES * _COUNT.size) if fd >= 0 else None
        self._at = place * _COUNT.size

    def __call__(self) -> None:
        """Counts: the loop turns."""
        if self._memory is not None:
            (count,) = _COUNT.unpack_from(self._memory, self._at)
            _COUNT.pack_into(self._memory, self._at, count + 1 & 0xFFFFFFFFFFFFFFFF)

    async def forever(self) -> Never:
        """Counts while the event loop turns."""
        while True:
            self()
            await asyncio.sleep(EVERY_S)


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
