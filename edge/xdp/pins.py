"""The pins of an edge in a BPF filesystem: maps, program and XDP link, which outlive every process of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from bpf.layout import Map
from edge.xdp import kernel
from runtime.config import Edge

__all__ = ["Pins", "PinsInUse", "folder_of"]

_NEXT = "next"


def folder_of(edge: Edge) -> Path:
    """The folder in which an edge pins. Names in a BPF filesystem have no dots."""
    return edge.pins / edge.name.replace(".", "_")


class PinsInUse(OSError):
    """The error that another living edge holds this folder."""


class Pins:
    """The folder of one edge, made if it is not there. A lock holds it until this is closed or the process ends.

    Raises PinsInUse where another process holds it, and OSError with one line where it cannot be: not in a BPF
    filesystem, or nothing may be written there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        there = next(place for place in (folder, *folder.parents) if place.exists())
        if not kernel.is_bpffs(there):
            raise OSError(f"{there} is not in a BPF filesystem: mount -t bpf bpf /sys/fs/bpf")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise PinsInUse(f"{folder} is held by another edge of this name") from None

    def get(self, name: str) -> int | None:
        """A descriptor of what is pinned under that name; the caller closes it."""
        try:
            return kernel.pinned(self.folder / name)
        except FileNotFoundError:
            return None

    def put(self, name: str, fd: int) -> None:
        """Pins what is behind ``fd`` in the place of what has that name; at every moment one of them is there."""
        self.drop(_NEXT)
        kernel.pin(fd, self.folder / _NEXT)
        (self.folder / _NEXT).rename(self.folder / name)

    def drop(self, name: str) -> None:
        """Unpins what has that name, if anything has."""
        (self.folder / name).unlink(missing_ok=True)

    def fit(self, maps: Mapping[str, Map]) -> tuple[dict[str, int], dict[str, int]]:
        """Two mappings of pinned maps by name, as descriptors that the caller closes: those that have the shape of the
        one in ``maps``, and those that have outgrown it."""
        fitting: dict[str, int] = {}
        outgrown: dict[str, int] = {}
        for name, wanted in maps.items():
            fd = self.get(name)
            if fd is None:
                continue
            about = kernel.facts(fd)
            found = tuple(int(about[fact]) for fact in ("map_type", "key_size", "value_size", "max_entries"))
            (fitting if found == wanted.shape else outgrown)[name] = fd
        return fitting, outgrown

    def remove(self) -> None:
        """Unpins everything and removes the folder."""
        for name in os.listdir(self.folder):
            self.drop(name)
        # The folder above may hold another edge's, or not be ours.
        with contextlib.suppress(OSError):
            self.folder.rmdir()
            self.folder.parent.rmdir()
        self.close()

    def close(self) -> None:
        """Closes the folder, and leaves everything in it for the next process."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
