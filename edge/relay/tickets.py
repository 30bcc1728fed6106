"""The tickets of a worker's flows: what media carries between this edge and a transceiver on another host, past the
workers (``wire/encapsulation.py``).

A ticket is told to the transceiver first. Media carries it when the transceiver has said that it knows it, so none
comes to it that it cannot tell whose it is. A ticket ends with its flow, and when the flow is another transceiver's.
"""

from __future__ import annotations

from typing import NamedTuple

from edge.xdp.kernel import FlowStore
from edge.xdp.ways import Backs
from wire.encapsulation import Head
from wire.messages import PathUp, Ticket

__all__ = ["Tickets"]


class _Held(NamedTuple):
    head: Head
    transceiver: int


class Tickets:
    """The tickets, by the address of their flow. There are no more of them than flows."""

    def __init__(self, backs: Backs, store: FlowStore) -> None:
        self._backs, self._store = backs, store
        self._held: dict[bytes, _Held] = {}

    def recover(self, address: bytes, transceiver: int) -> None:
        """Goes on with the ticket of a flow that a predecessor of this process had."""
        head = self._store.head(address)
        if head is not None:
            self._held[address] = _Held(head, transceiver)

    def up(self, transceiver: int, up: PathUp) -> tuple[Head | None, Ticket | None]:
        """What the flow's media is to carry from now on, and what the transceiver is to be told, after ``path.up``."""
        held = self._held.get(up.address)
        if held is not None and held.transceiver != transceiver:
            self.end(up.address)
            held = None
        if up.number is None or not up.proved or not self._backs.reaches(transceiver):
            # What it may still send by the ticket is let through until the flow ends.
            return None, None
        if held is None or not self._backs.knows(held.head):
            head = self._backs.put(up.address, transceiver)
            if head is None:
                return None, None
            held = self._held[up.address] = _Held(head, transceiver)
        if up.number == held.head.number:
            return held.head, None
        return None, Ticket(address=up.address, number=held.head.number, ticket=held.head.ticket)

    def of(self, transceiver: int) -> list[bytes]:
        """The addresses of the transceiver's flows that have a ticket."""
        return [address for address, held in self._held.items() if held.transceiver == transceiver]

    def end(self, address: bytes) -> None:
        """Ends the ticket of a flow, if it has one."""
        held = self._held.pop(address, None)
        if held is not None:
            self._backs.remove(held.head)
