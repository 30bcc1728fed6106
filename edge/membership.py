"""The membership of transceivers that a store tells of: who is there, and who may be gone. Pure.

A snapshot that lacks an entry proves little: the store may have begun anew, or be cut off from the entry's owner. So
one leaves only when it has been missing for as long as entries are good, and does not answer by its link either.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge.directory import Transceiver
from wire.report import Report

__all__ = ["Membership"]


class Membership:
    """Who is there, in ``transceivers``, at most ``most`` of them. It begins with ``known``, as a process before this
    one left it. Entries are good for ``ttl_s``; times are monotonic, in seconds."""

    def __init__(self, ttl_s: float, most: int, known: Mapping[int, str], now: float) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._endpoints = dict(known)
        self._seen = dict.fromkeys(known, now)
        self._readable_since: float | None = None

    def __len__(self) -> int:
        return len(self._endpoints)

    @property
    def transceivers(self) -> list[Transceiver]:
        """All of them, by id."""
        return [Transceiver(number, self._endpoints[number]) for number in sorted(self._endpoints)]

    def take(self, reports: Mapping[int, Report], now: float) -> bool:
        """Takes what a snapshot says. Returns whether that changed who is there, or where."""
        if self._readable_since is None:
            self._readable_since = now
        changed = False
        for number, report in reports.items():
            if number not in self._endpoints and len(self._endpoints) >= self._most:
                continue
            self._seen[number] = now
            if self._endpoints.get(number) != report.endpoint:
                self._endpoints[number] = report.endpoint
                changed = True
        return changed

    def unreadable(self) -> None:
        """Takes note that there is no snapshot now: nobody's time runs out meanwhile."""
        self._readable_since = None

    def told_long_enough(self, now: float) -> bool:
        """Whether snapshots have come for as long as entries are good, so that what they lack is missing."""
        return self._readable_since is not None and now - self._readable_since >= self._ttl_s

    def missing(self, now: float) -> list[int]:
        """Those who have been missing for long enough to be gone, unless they answer."""
        if not self.told_long_enough(now):
            return []
        return [number for number, seen in self._seen.items() if now - seen >= self._ttl_s]

    def answered(self, number: int, now: float) -> None:
        """One that is missing answers by its link: it stays."""
        self._seen[number] = now

    def gone(self, number: int) -> None:
        """One that is missing does not answer: it is there no more."""
        del self._endpoints[number], self._seen[number]
