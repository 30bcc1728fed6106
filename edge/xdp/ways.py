"""The maps of the express path between hosts (``bpf/between.c``): how XDP reaches transceivers there, which the edge's
supervisor writes, and the clients to whom they answer, which the workers write.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bpf.layout import BACK, FALLBACKS, HOST, NUMBER, U32, U64, WAY, WAY_PLACES, WAYS
from edge.xdp.kernel import BpfMap, possible_cpus
from wire.encapsulation import Head, new_ticket

__all__ = ["Backs", "Hop", "Ways"]


@dataclass(frozen=True, slots=True)
class Hop:
    """How a transceiver on another host is reached: at ``address`` (18 bytes, ``wire/address.py``), from the edge's
    ``source`` (16 bytes), by the interface of that index, between those addresses of Ethernet, in packets of at most
    ``mtu`` bytes with IP's header."""

    address: bytes
    source: bytes
    to: bytes
    by: bytes
    interface: int
    mtu: int


_NOBODY: Final = bytes(2)  # the port of a place that nobody has
_OPEN_AT: Final = WAY.offset("open")  # behind everything else


class _Places:
    """The array of ways, where a transceiver has one of a few places: ``bpf/between.c`` looks there in this order."""

    def __init__(self, ways_fd: int) -> None:
        self._table = BpfMap(ways_fd, U32.size, WAY.size)

    def find(self, transceiver: int) -> tuple[bytes, bytes] | None:
        """The place of a transceiver, and its way; None where it has none."""
        for place in self._of(transceiver):
            value = self._table.lookup(place) or b""
            if WAY.read(value, "transceiver") == transceiver and WAY.read(value, "port") != _NOBODY:
                return place, value
        return None

    def free(self, transceiver: int) -> bytes | None:
        """A place that it can have; None where others have all of them."""
        for place in self._of(transceiver):
            if WAY.read(self._table.lookup(place) or b"", "port") == _NOBODY:
                return place
        return None

    def write(self, place: bytes, way: bytes) -> None:
        """Puts a way at a place. XDP may read while the kernel writes, so both that was there and that comes are closed
        when they change places."""
        before = self._table.lookup(place) or b""
        if before[:_OPEN_AT] != way[:_OPEN_AT]:
            self._table.update(place, _turned(before, False))
            self._table.update(place, _turned(way, False))
        self._table.update(place, way)

    def items(self) -> Iterator[bytes]:
        """All ways."""
        return (value for _, value in self._table.items() if WAY.read(value, "port") != _NOBODY)

    @staticmethod
    def _of(transceiver: int) -> list[bytes]:
        return [U32.pack((transceiver + i) % WAYS) for i in range(WAY_PLACES)]


def _turned(way: bytes, open: bool) -> bytes:
    """The way, open or closed."""
    return way[:_OPEN_AT] + U32.pack(open)


class Ways:
    """The ways to transceivers on other hosts."""

    def __init__(self, ways_fd: int, inners_fd: int, fallbacks_fd: int) -> None:
        self._places = _Places(ways_fd)
        self._inners = BpfMap(inners_fd, HOST.size, U32.size)
        self._copies = len(possible_cpus())
        self._fallbacks = BpfMap(fallbacks_fd, U32.size, U64.size * self._copies)

    @property
    def open(self) -> dict[int, bool]:
        """The transceivers that have a way, each with whether media goes there."""
        return {WAY.read(way, "transceiver"): bool(WAY.read(way, "open")) for way in self._places.items()}

    def put(self, transceiver: int, hop: Hop, *, open: bool) -> bool:
        """Has media go to the transceiver so, where it is ``open``, and lets through what comes from there. Returns
        False where there is no room."""
        if not self._inners.put(hop.source, U32.pack(1)):
            return False
        found = self._places.find(transceiver)
        place = found[0] if found is not None else self._places.free(transceiver)
        if place is None:
            return False
        host, port = hop.address[:16], hop.address[16:]
        mtu, total = min(hop.mtu, 0xFFFF), _sum(hop.address + hop.source)
        way = WAY.pack(host, hop.source, hop.to, hop.by, port, mtu, hop.interface, transceiver, total, open)
        self._places.write(place, way)
        return True

    def close(self, transceiver: int) -> bool:
        """Has media go by the workers; what comes from there is still let through. Returns False where it does
        already."""
        return self._turn(transceiver, False)

    def reopen(self, transceiver: int) -> bool:
        """Has media go by a way that was closed. Returns False where it does already, or there is none."""
        return self._turn(transceiver, True)

    def _turn(self, transceiver: int, open: bool) -> bool:
        found = self._places.find(transceiver)
        if found is None or WAY.read(found[1], "open") == open:
            return False
        self._places.write(found[0], _turned(found[1], open))
        return True

    def remove(self, transceiver: int) -> bool:
        """Forgets the transceiver. Returns False where it had no way."""
        found = self._places.find(transceiver)
        if found is None:
            return False
        self._places.write(found[0], bytes(WAY.size))
        return True

    def fallbacks(self) -> dict[str, int]:
        """The number of packets that a worker had although the way was open, by why."""
        counts = [self._fallbacks.lookup(U32.pack(at)) or b"" for at in range(len(FALLBACKS))]
        sums = [sum(U64.unpack(each[at : at + 8])[0] for at in range(0, len(each), 8)) for each in counts]
        return dict(zip(FALLBACKS, sums, strict=True))


def _sum(data: bytes) -> int:
    """The sum of 16 bit words in ones' complement, of an even number of bytes, as the machine reads them."""
    total = sum(struct.unpack(f"={len(data) // 2}H", data))
    return total % 0xFFFF or 0xFFFF


_NUMBER_BYTES: Final = 4
_TRIES: Final = 8


class Backs:
    """The clients to whom transceivers on other hosts answer past the workers, by the numbers of their flows."""

    def __init__(self, backs_fd: int, ways_fd: int) -> None:
        self._backs = BpfMap(backs_fd, NUMBER.size, BACK.size)
        self._ways = _Places(ways_fd)

    def reaches(self, transceiver: int) -> bool:
        """Whether the transceiver has a way."""
        return self._ways.find(transceiver) is not None

    def put(self, client: bytes, transceiver: int) -> Head | None:
        """Makes a ticket for a client's flow. Returns None where there is no room. Numbers are random: no process need
        know which ones the others have given."""
        for _ in range(_TRIES):
            number = int.from_bytes(os.urandom(_NUMBER_BYTES))
            if number and self._backs.lookup(NUMBER.pack(number)) is None:
                head = Head(number, new_ticket())
                value = BACK.pack(head.ticket, client[:16], client[16:], bytes(6), bytes(6), transceiver, 0)
                return head if self._backs.put(NUMBER.pack(number), value) else None
        return None

    def knows(self, head: Head) -> bool:
        """Whether the ticket is in force."""
        value = self._backs.lookup(NUMBER.pack(head.number))
        return value is not None and bool(BACK.read(value, "ticket") == head.ticket)

    def remove(self, head: Head) -> bool:
        """Ends a ticket. Returns False where it had ended."""
        return self.knows(head) and self._backs.delete(NUMBER.pack(head.number))
