"""The directory of transceivers: which ones there are, and who is told of those that come, change and go. Pure.

A *source* fills it: whatever reads a configuration, a file (``edge/directory_file.py``) or a socket calls ``replace``,
``put`` or ``remove`` in the thread that has the directory. Anyone may read a snapshot from any thread, without waiting.

Beside them are the *reports* in which transceivers say how they are. They change each second and are no news.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Protocol

import msgspec

from wire.report import Report
from wire.ufrag import MAX_TRANSCEIVER

__all__ = ["AT_ONCE", "MOST_DEPARTED", "Directory", "Known", "Subscriber", "Transceiver"]

AT_ONCE = 64  # transceivers with a link from the beginning; the others get one when it is needed
MOST_DEPARTED = 256  # of those that went last: ids may be new for ever, and calls end
_SMOOTHING = 1 / 8  # the weight of a new round trip, as RFC 6298 section 2 has it


class Transceiver(msgspec.Struct, frozen=True):
    """A transceiver process: the id that its ufrags carry, and the ZeroMQ endpoint where it listens.

    A field that is added has a default: a process of the version before reads entries without it, and ignores it.
    """

    id: Annotated[int, msgspec.Meta(ge=0, le=MAX_TRANSCEIVER)]
    endpoint: str


class Known(msgspec.Struct, frozen=True):
    """What is known of how a transceiver is. Times are in seconds."""

    report: Report
    received_at: float
    """When this report was new, by the reader's monotonic clock."""
    round_trip_s: float | None = None
    """From this edge to the transceiver and back, smoothed; None where no link has measured it."""
    least_round_trip_s: float | None = None
    """The shortest so far: the way alone, without what waited."""


class Subscriber(Protocol):
    """An object that is told of changes, after the snapshot has them. Its methods may not wait."""

    def came(self, transceiver: Transceiver) -> None:
        """A transceiver is there, and new calls may go to it."""

    def changed(self, transceiver: Transceiver) -> None:
        """A transceiver has changed in something other than its id, such as its endpoint."""

    def went(self, transceiver: Transceiver) -> None:
        """A transceiver left: it gets no new calls. Its present calls go on, so links to it may have to."""


class Directory:
    """The transceivers by id. ``departed`` are those that left and whose calls may still go on, so that a process that
    begins later can reach them too. An id that comes again is departed no longer."""

    def __init__(self, transceivers: Iterable[Transceiver] = (), departed: Iterable[Transceiver] = ()) -> None:
        self._subscribers: list[Subscriber] = []
        self._listeners: list[Callable[[Known], None]] = []
        self._present: Mapping[int, Transceiver] = MappingProxyType({})
        self._departed: Mapping[int, Transceiver] = MappingProxyType({})
        self._reports: dict[int, Known] = {}
        self.replace(transceivers, departed)

    @property
    def present(self) -> Mapping[int, Transceiver]:
        """A snapshot, which later changes leave as it is."""
        return self._present

    @property
    def departed(self) -> Mapping[int, Transceiver]:
        """A snapshot of those that went, as they were last."""
        return self._departed

    @property
    def reports(self) -> Mapping[int, Known]:
        """The last report of each that is present and has made one. It follows later reports."""
        return MappingProxyType(self._reports)

    def report(self, report: Report, now: float, round_trip_s: float | None = None) -> bool:
        """Takes note of a report that was received at ``now``, by a link that measured ``round_trip_s`` if it did.
        Returns False where it is of a transceiver that is not present, or older than what is known of it."""
        known = self._reports.get(report.id)
        if report.id not in self._present:
            return False
        if known is None:
            self._hear(Known(report, now, round_trip_s, round_trip_s))
            return True
        same = known.report.generation == report.generation
        if same and report.number < known.report.number:
            return False
        received_at = known.received_at if same and report.number == known.report.number else now
        smoothed, least = known.round_trip_s, known.least_round_trip_s
        if round_trip_s is not None and smoothed is not None and least is not None:
            smoothed += _SMOOTHING * (round_trip_s - smoothed)
            least = min(least, round_trip_s)
        elif round_trip_s is not None:
            smoothed = least = round_trip_s
        self._hear(Known(report, received_at, smoothed, least))
        return True

    def listen(self, listener: Callable[[Known], None]) -> None:
        """Tells ``listener``, which may not wait, what is known of each and from now on of each report."""
        self._listeners.append(listener)
        for known in self._reports.values():
            listener(known)

    def _hear(self, known: Known) -> None:
        self._reports[known.report.id] = known
        for listener in self._listeners:
            listener(known)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Tells ``subscriber`` of those that are there, and from now on of changes."""
        self._subscribers.append(subscriber)
        for transceiver in self._present.values():
            subscriber.came(transceiver)

    def put(self, transceiver: Transceiver) -> None:
        """Enters a transceiver, or changes the one that has its id."""
        self._become({**self._present, transceiver.id: transceiver}, {})

    def remove(self, number: int) -> None:
        """Takes a transceiver out. Nothing happens where there is none."""
        self._become({i: transceiver for i, transceiver in self._present.items() if i != number}, {})

    def replace(self, transceivers: Iterable[Transceiver], departed: Iterable[Transceiver] = ()) -> None:
        """Makes these the whole directory; ``departed`` left before this directory could see it.

        Raises ValueError, and changes nothing, where two have one id.
        """
        listed = list(transceivers)
        present = {transceiver.id: transceiver for transceiver in listed}
        if len(present) != len(listed):
            raise ValueError("two transceivers have one id")
        self._become(present, {transceiver.id: transceiver for transceiver in departed})

    def _become(self, present: dict[int, Transceiver], departed: dict[int, Transceiver]) -> None:
        before = self._present
        went = {i: transceiver for i, transceiver in before.items() if i not in present}
        gone = {**departed, **self._departed, **went}
        for i in went:
            self._reports.pop(i, None)
        self._present = MappingProxyType(present)
        known = [i for i in gone if i not in present][-MOST_DEPARTED:]
        self._departed = MappingProxyType({i: gone[i] for i in known})
        changed = [new for i, new in present.items() if i in before and before[i] != new]
        came = [new for i, new in present.items() if i not in before]
        for subscriber in self._subscribers:
            # In this order, because an endpoint may pass from one id to another.
            for transceiver in went.values():
                subscriber.went(transceiver)
            for transceiver in changed:
                subscriber.changed(transceiver)
            for transceiver in came:
                subscriber.came(transceiver)
