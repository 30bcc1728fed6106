"""Memory that outlives the processes that use it: a memfd in the supervisor's store. It is never on a disk."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

from runtime.supervision.store import Store

__all__ = ["kept", "mapped"]


def kept(store: Store, name: str, size: int) -> int:
    """The descriptor of ``size`` bytes and more that the store keeps under ``name``: what an earlier supervisor left,
    or zeros, which cost no memory until they are written."""
    fd = store.take(name)
    if fd is None:
        fd = os.memfd_create(f"firsthop-{name}")
        store.keep(name, fd)
    if os.fstat(fd).st_size < size:
        os.ftruncate(fd, size)
    return fd


def mapped(fd: int) -> tuple[memoryview, Callable[[int, int], None]]:
    """All memory behind the descriptor, and what gives a part of it back: (at, size), both whole pages."""
    memory = mmap.mmap(fd, 0)
    return memoryview(memory), lambda at, size: memory.madvise(mmap.MADV_REMOVE, at, size)
