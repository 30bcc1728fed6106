"""A worker's links to transceivers, as these come to the directory, move and leave it.

The first AT_ONCE transceivers have a link from the beginning. Where there are more, the others get one with the first
check that is for them; clients repeat a check that comes before the link is up.

The link to a transceiver that left carries the media of its calls for as long as they go on. It ends when no flow of it
is left, but not before a call that was answered just before could make itself known; or when its other end has been
away for so long that no call can be left (RFC 7675: consent is lost after 30 s).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import zmq

from edge.directory import AT_ONCE, Directory, Transceiver
from edge.relay.uplink import Uplink
from runtime import logs
from runtime.families import edge as families
from runtime.metrics import Gauges

__all__ = ["GONE_AFTER_S", "LINGER_S", "Uplinks"]

LINGER_S = 15.0
GONE_AFTER_S = 60.0


@dataclass(slots=True)
class _Leaving:
    since: float
    seen: float  # when its other end was there last


class Uplinks:
    """The links to transceivers of ``directory``, and to those that left it and have calls, in ``by_id``. ``make``
    makes a link; ``pollers`` wait for what links bring."""

    def __init__(
        self, directory: Directory, make: Callable[[Transceiver], Uplink], pollers: Iterable[zmq.Poller]
    ) -> None:
        self.by_id: dict[int, Uplink] = {}
        self._directory = directory
        self._make = make
        self._pollers = tuple(pollers)
        self._leaving: dict[int, _Leaving | None] = {}  # None until the first look
        self._lasting = 0
        self.metrics = Gauges(families.LINK_UP, self._up), Gauges(families.LINK_VERSION, self._versions)
        directory.subscribe(self)

    def came(self, transceiver: Transceiver) -> None:
        """Makes the link, unless there are many already, or goes on with the one that stands."""
        if transceiver.id in self.by_id or len(self.by_id) - self._lasting < AT_ONCE:
            self._link(transceiver)

    def _link(self, transceiver: Transceiver) -> None:
        self._leaving.pop(transceiver.id, None)
        standing = self.by_id.get(transceiver.id)
        if standing is not None and standing.endpoint == transceiver.endpoint:
            return
        if standing is not None:
            self._close(standing)
        self._enter(self._make(transceiver))

    def keep(self, uplink: Uplink) -> None:
        """Has a link among these that the directory does not know, and that never ends."""
        self._lasting += 1
        self._enter(uplink)

    def _enter(self, uplink: Uplink) -> None:
        self.by_id[uplink.number] = uplink
        for poller in self._pollers:
            poller.register(uplink.dealer, zmq.POLLIN)

    def changed(self, transceiver: Transceiver) -> None:
        """Moves the link where the endpoint is another one. Its flows stay, because it is the same transceiver."""
        self.came(transceiver)

    def went(self, transceiver: Transceiver) -> None:
        """Keeps the link until its calls are over."""
        if transceiver.id in self.by_id:
            self._leaving[transceiver.id] = None

    def reach(self, number: int) -> bool:
        """Whether there is a link to ``number``, which is made where it was not needed before: to a transceiver of the
        directory, or to one that left it before this worker began and whose calls its predecessor had."""
        if number in self.by_id:
            return True
        present, departed = self._directory.present.get(number), self._directory.departed.get(number)
        wanted = present or departed
        if wanted is None:
            return False
        try:
            self._link(wanted)
        except zmq.ZMQError as e:  # no more descriptors
            logs.get().error("no link to a transceiver can be made", transceiver=number, why=str(e))
            return False
        if present is None:
            self.went(wanted)
        return True

    def look(self, now: float, has_flows: Callable[[int], bool]) -> list[int]:
        """The transceivers whose link may ``end``. Call it about once a second, because links then take note of who
        came and went."""
        over = []
        for number, uplink in self.by_id.items():
            there = uplink.there
            uplink.greet()
            if number not in self._leaving:
                continue
            leaving = self._leaving[number] = self._leaving[number] or _Leaving(now, now)
            if there:
                leaving.seen = now
            gone = now - leaving.seen >= GONE_AFTER_S
            if gone or (now - leaving.since >= LINGER_S and not has_flows(number)):
                over.append(number)
        return over

    def end(self, number: int) -> None:
        """Ends the link to a transceiver that left, and forgets its measurements. It may have no flow any more."""
        del self._leaving[number]
        uplink = self.by_id.pop(number)
        self._close(uplink)
        uplink.forget()

    def _up(self) -> dict[tuple[str, ...], float]:
        # One that left is not missed.
        links = [uplink for number, uplink in list(self.by_id.items()) if number not in self._leaving]
        return {(uplink.label,): float(uplink.up) for uplink in links}

    def _versions(self) -> dict[tuple[str, ...], float]:
        # list() takes them at once: another thread asks.
        return {(uplink.label,): uplink.greeting.version for uplink in list(self.by_id.values())}

    def _close(self, uplink: Uplink) -> None:
        for poller in self._pollers:
            poller.unregister(uplink.dealer)
        uplink.close()
