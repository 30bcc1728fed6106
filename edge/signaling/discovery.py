"""The discovery of transceivers and edges: what the directory's store says becomes what this edge knows.

The store is read once a second, and a moment after it tells of a change. Who is there goes to a file that workers and
signaling follow (``edge.directory_file``); how they are goes to the directory of this process. While the store is away
nothing changes, and what is known gets older.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Never

from prometheus_client.registry import Collector

from edge.directory import Directory, Transceiver
from edge.directory_file import unlisted, write
from edge.links.transceivers import RequestRefused, Transceivers, Unavailable
from edge.membership import Membership
from edge.peers import Peer
from runtime import logs
from runtime.address import Address
from runtime.config import Edge
from runtime.directory.store import MAX_TRANSCEIVERS, REFUSALS, Snapshot, Store, StoreError
from runtime.families import edge as families
from runtime.logs import Log
from runtime.metrics import Gauge, Gauges
from wire.messages import Health
from wire.report import EdgeReport, Report
from wire.versions import software

__all__ = ["Discovery", "EdgeReporting", "peers_in"]

_EVERY_S = 1.0
_SHARED_S = 0.8  # how old a snapshot of another edge's may be
_LEAST_S = 0.2  # between two looks, however many changes are told
_PULSE_S = 0.5
_AT_ONCE = 64  # that are missing and asked whether they live
_MOST_BESIDE = 64  # as many as ``edge.edges`` may name
_A_TURN = 500  # reports that are taken before others have their turn

Edges = Callable[[Iterable[EdgeReport]], None]


class Discovery:
    """What ``store`` tells, for the ``directory`` of this process and, by the file ``found``, for all of the edge's;
    that is None where it cannot be written. ``configured()`` are the transceivers of the configuration, ``ttl_s`` is
    for how long entries are good, and ``edges`` is called with all edges that are known whenever one of them says
    something new. Edges of which ``beside`` is true are behind one address with this one: its workers are told of their
    endpoints by that file too."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        transceivers: Transceivers,
        *,
        found: Path | None,
        known: Iterable[Transceiver],
        configured: Callable[[], Iterable[Transceiver]],
        ttl_s: float,
        log: Log,
        edges: Edges = lambda _: None,
        beside: Callable[[EdgeReport], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        now = clock()
        self._store = store
        self._directory = directory
        self._transceivers = transceivers
        self._found = found
        self._configured = configured
        self._ttl_s = ttl_s
        self._log = log
        self._tell_edges = edges
        self._members = Membership(ttl_s, MAX_TRANSCEIVERS, {each.id: each.endpoint for each in known}, now)
        self._edges: dict[str, tuple[EdgeReport, float]] = {}
        self._is_beside = beside
        self._beside: list[str] = []
        self._read_at = now
        self._away = False
        self._unwritten = False
        self._complained: set[int] = set()
        self._refused: Mapping[str, int] = {}

    @property
    def age_s(self) -> float:
        """Seconds since the store was read last, or since this process began."""
        return self._clock() - self._read_at

    @property
    def metrics(self) -> tuple[Collector, ...]:
        """What Prometheus is told."""
        return (
            Gauge(families.DIRECTORY_AGE, lambda: self.age_s),
            Gauge(families.DIRECTORY_TRANSCEIVERS, lambda: len(self._members)),
            Gauges(families.DIRECTORY_REFUSED, lambda: {(why,): self._refused.get(why, 0) for why in REFUSALS}),
        )

    async def run(self) -> Never:
        """Looks for ever."""
        shared_s = _SHARED_S
        while True:
            try:
                await self.look(shared_s)
            except Exception:
                # A fault of ours with one snapshot, and no reason to read no other.
                logs.get().exception("a snapshot of the directory's store failed")
            await asyncio.sleep(_LEAST_S)
            shared_s = _SHARED_S
            with suppress(TimeoutError):
                async with asyncio.timeout((_EVERY_S - _LEAST_S) * random.uniform(0.9, 1.1)):  # noqa: S311
                    await self._store.changed()
                    shared_s = _LEAST_S  # what was read before the change does not have it

    async def look(self, shared_s: float = _SHARED_S) -> None:
        """Reads the store, once, and takes what it says. What another edge has read may be ``shared_s`` old."""
        try:
            snapshot = await self._store.snapshot(shared_s)
        except StoreError as e:
            self._members.unreadable()
            if not self._away:
                self._away = True
                self._log.warning("the directory's store is away: this edge goes on with what it knows", why=str(e))
            return
        now = self._clock()
        if self._away:
            self._away = False
            self._log.info("the directory's store is back", after_s=round(now - self._read_at, 1))
        self._read_at = now
        self._refuse(snapshot.refused)
        changed = self._members.take(snapshot.transceivers, now)
        changed = await self._let_go(now) or changed
        changed = self._take_edges(snapshot, now) or changed
        if changed or self._unwritten:
            self._write()
        await self._reports(snapshot.transceivers, now)

    async def _let_go(self, now: float) -> bool:
        """Asks those that are missing whether they live. Returns whether one was let go."""
        asked = self._members.missing(now)[:_AT_ONCE]
        lives = await asyncio.gather(*(self._lives(number) for number in asked))
        for number, alive in zip(asked, lives, strict=True):
            if alive:
                self._members.answered(number, now)
            else:
                self._members.gone(number)
        return not all(lives)

    async def _lives(self, number: int) -> bool:
        try:
            await self._transceivers.ask(number, Health(), patience_s=_PULSE_S)
        except RequestRefused:
            return True
        except Unavailable:
            return False
        return True

    async def _reports(self, reports: Mapping[int, Report], now: float) -> None:
        for i, report in enumerate(reports.values(), 1):
            self._directory.report(report, now)
            if i % _A_TURN == 0:
                await asyncio.sleep(0)

    def _take_edges(self, snapshot: Snapshot, now: float) -> bool:
        """Takes what a snapshot says of edges. Returns whether that changed which are beside this one."""
        before = {name: report for name, (report, _) in self._edges.items()}
        self._edges.update({name: (report, now) for name, report in snapshot.edges.items()})
        if self._members.told_long_enough(now):
            self._edges = {name: kept for name, kept in self._edges.items() if now - kept[1] < self._ttl_s}
        known = {name: report for name, (report, _) in self._edges.items()}
        if known != before:
            self._tell_edges(known.values())
        beside = sorted({each.endpoint for each in known.values() if each.endpoint and self._is_beside(each)})
        changed, self._beside = beside[:_MOST_BESIDE] != self._beside, beside[:_MOST_BESIDE]
        return changed

    def _write(self) -> None:
        there = self._members.transceivers
        for each in unlisted(self._configured(), there):
            if each.id not in self._complained:
                self._complained.add(each.id)
                why = f"edge.transceivers has transceiver {each.id} elsewhere, and counts: give each an id of its own"
                self._log.warning("a transceiver of the directory is not used", why=why, endpoint=each.endpoint)
        if self._found is None:
            return
        try:
            write(self._found, there, self._beside)
        except OSError as e:
            if not self._unwritten:
                why = f"{self._found}: {e.strerror}"
                self._log.warning("transceivers that were found cannot be used", why=why)
            self._unwritten = True
            return
        self._unwritten = False

    def _refuse(self, refused: Mapping[str, int]) -> None:
        if refused and not self._refused:
            why = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in refused.items())
            self._log.warning("entries in the directory's store cannot be used", why=why)
        self._refused = refused


def peers_in(reports: Iterable[EdgeReport]) -> list[Peer]:
    """The edges among these that announce themselves to others."""
    return [
        Peer(report.name, Address(report.media).pair, report.endpoint, report.region)
        for report in reports
        if report.endpoint
    ]


class EdgeReporting:
    """The reports of this edge to the others. ``endpoint`` is that of its announcements; ``draining()`` tells whether
    clients should be told of others instead."""

    def __init__(self, edge: Edge, endpoint: str = "", draining: Callable[[], bool] = lambda: False) -> None:
        self._edge = edge
        self._endpoint = endpoint
        self._draining = draining
        self._generation = secrets.randbits(63)
        self._number = 0

    def make(self) -> EdgeReport:
        """The report of now."""
        self._number += 1
        edge = self._edge
        return EdgeReport(
            edge.name,
            str(edge.advertise or edge.media),
            self._endpoint,
            self._generation,
            self._number,
            edge.region,
            edge.zone,
            self._draining(),
            software(),
        )
