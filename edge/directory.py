"""The directory of transceivers: which ones there are, and who is told of those that come, change and go. Pure.

A *source* fills it: whatever reads a configuration, a file (``edge/directory_file.py``) or a socket calls ``replace``,
``put`` or ``remove`` in the thread that has the directory. Anyone may read a snapshot from any thread, without waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Protocol

import msgspec

from wire.ufrag import MAX_TRANSCEIVER

__all__ = ["MOST_DEPARTED", "Directory", "Subscriber", "Transceiver"]

MOST_DEPARTED = 256  # of those that went last: ids may be new for ever, and calls end


class Transceiver(msgspec.Struct, frozen=True):
    """A transceiver process: the id that its ufrags carry, and the ZeroMQ endpoint where it listens.

    A field that is added has a default: a process of the version before reads entries without it, and ignores it.
    """

    id: Annotated[int, msgspec.Meta(ge=0, le=MAX_TRANSCEIVER)]
    endpoint: str


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
        self._present: Mapping[int, Transceiver] = MappingProxyType({})
        self._departed: Mapping[int, Transceiver] = MappingProxyType({})
        self.replace(transceivers, departed)

    @property
    def present(self) -> Mapping[int, Transceiver]:
        """A snapshot, which later changes leave as it is."""
        return self._present

    @property
    def departed(self) -> Mapping[int, Transceiver]:
        """A snapshot of those that went, as they were last."""
        return self._departed

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
