"""The store of the directory: entries that vanish unless their owners repeat them, and snapshots of all that there are.

Nobody asks a store while a call waits. What is read from one is not trusted: only who has the cluster's keys can be
spoken to at an endpoint that it names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from wire.report import EdgeReport, Report

__all__ = [
    "MAX_EDGES",
    "MAX_ENTRY_BYTES",
    "MAX_TRANSCEIVERS",
    "REFUSALS",
    "Entry",
    "MemoryStore",
    "Snapshot",
    "Store",
    "StoreError",
    "name_of",
]

MAX_TRANSCEIVERS = 16384  # of a snapshot
MAX_EDGES = 1024
MAX_ENTRY_BYTES = 16 << 10
REFUSALS = ("malformed", "too_large", "too_many")

Entry = Report | EdgeReport


class StoreError(Exception):
    """The error that the store is away, or does not do what it is asked."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All entries at one time. ``refused`` counts those that are none, by the outcomes of REFUSALS; ``size_bytes`` is
    what was read."""

    transceivers: Mapping[int, Report] = field(default_factory=dict)
    edges: Mapping[str, EdgeReport] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    size_bytes: int = 0


class Store(Protocol):
    """A store. Methods raise StoreError, after a few seconds at most, where it is away."""

    async def put(self, entry: Entry) -> Entry | None:
        """Enters an entry, or repeats it. Where one of its name is there that another process at another endpoint
        repeats, that one stays, and is returned. Raises ValueError where the entry is too large."""

    async def remove(self, entry: Entry) -> None:
        """Takes an entry out, if it is of the same process."""

    async def snapshot(self, at_most_s: float = 0.0) -> Snapshot:
        """All entries that are good now, or as another reader found them about ``at_most_s`` ago."""

    async def changed(self) -> None:
        """Returns when the store tells that somebody came or went. It is a hint: it may be late, or never come."""

    async def close(self) -> None:
        """Ends all connections."""


def name_of(entry: Entry) -> tuple[str, str]:
    """The kind of an entry, and its name among those."""
    return ("transceiver", str(entry.id)) if isinstance(entry, Report) else ("edge", entry.name)


class MemoryStore:
    """A store for those who share a process. Entries are good for ``ttl_s``, by the monotonic ``clock``."""

    def __init__(self, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: dict[tuple[str, str], tuple[Entry, float]] = {}
        self._changes: list[asyncio.Event] = []

    @property
    def waits(self) -> bool:
        """Whether somebody waits for a change."""
        return bool(self._changes)

    async def put(self, entry: Entry) -> Entry | None:
        """See Store."""
        name, now = name_of(entry), self._clock()
        there, until = self._entries.get(name, (entry, now))
        good = until > now
        if good and there.generation != entry.generation and there.endpoint != entry.endpoint:
            return there
        self._entries[name] = entry, now + self._ttl_s
        if not good or (there.generation, there.draining) != (entry.generation, entry.draining):
            self._tell()
        return None

    async def remove(self, entry: Entry) -> None:
        """See Store."""
        there = self._entries.get(name_of(entry))
        if there is not None and there[0].generation == entry.generation:
            del self._entries[name_of(entry)]
            self._tell()

    async def snapshot(self, at_most_s: float = 0.0) -> Snapshot:
        """See Store."""
        now = self._clock()
        self._entries = {name: kept for name, kept in self._entries.items() if kept[1] > now}
        good = [entry for entry, _ in self._entries.values()]
        return Snapshot(
            {entry.id: entry for entry in good if isinstance(entry, Report)},
            {entry.name: entry for entry in good if isinstance(entry, EdgeReport)},
        )

    async def changed(self) -> None:
        """See Store."""
        self._changes.append(told := asyncio.Event())
        try:
            await told.wait()
        finally:
            self._changes.remove(told)

    async def close(self) -> None:
        """See Store."""

    def _tell(self) -> None:
        for told in self._changes:
            told.set()
