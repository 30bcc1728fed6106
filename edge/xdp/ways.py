"""The maps of the express path between hosts (``bpf/between.c``): how XDP reaches transceivers there, which the edge's
supervisor writes, and the clients to whom they answer, which the workers write.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bpf.layout import BACK, FALLBACKS, HOST, NUMBER, U32, U64, WAY
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


class Ways:
    """The ways to transceivers on other hosts."""

    def __init__(self, ways_fd: int, inners_fd: int, fallbacks_fd: int) -> None:
        self._ways = BpfMap(ways_fd, U32.size, WAY.size)
        self._inners = BpfMap(inners_fd, HOST.size, U32.size)
        self._copies = len(possible_cpus())
        self._fallbacks = BpfMap(fallbacks_fd, U32.size, U64.size * self._copies)

    @property
    def open(self) -> dict[int, bool]:
        """The transceivers that have a way, each with whether media goes there."""
        return {U32.unpack(key)[0]: bool(WAY.read(value, "open")) for key, value in self._ways.items()}

    def put(self, transceiver: int, hop: Hop, *, open: bool) -> bool:
        """Has media go to the transceiver so, where it is ``open``, and lets through what comes from there. Returns
        False where there is no room."""
        if not self._inners.put(hop.source, U32.pack(1)):
            return False
        host, port = hop.address[:16], hop.address[16:]
        mtu = min(hop.mtu, 0xFFFF)
        value = WAY.pack(host, hop.source, hop.to, hop.by, port, mtu, hop.interface, open)
        return self._ways.put(U32.pack(transceiver), value)

    def close(self, transceiver: int) -> bool:
        """Has media go by the workers; what comes from there is still let through. Returns False where it does
        already."""
        return self._turn(transceiver, False)

    def reopen(self, transceiver: int) -> bool:
        """Has media go by a way that was closed. Returns False where it does already, or there is none."""
        return self._turn(transceiver, True)

    def _turn(self, transceiver: int, open: bool) -> bool:
        key = U32.pack(transceiver)
        value = self._ways.lookup(key)
        if value is None or WAY.read(value, "open") == open:
            return False
        self._ways.update(key, WAY.pack(*WAY.unpack(value)[:-1], open))
        return True

    def remove(self, transceiver: int) -> bool:
        """Forgets the transceiver. Returns False where it had no way."""
        return self._ways.delete(U32.pack(transceiver))

    def keep_inners(self, sources: Iterable[bytes]) -> None:
        """Has XDP judge what comes to the edge's ports at these of its addresses, and at no others."""
        wanted = set(sources)
        for key, _ in list(self._inners.items()):
            if key not in wanted:
                self._inners.delete(key)
        for key in wanted:
            self._inners.put(key, U32.pack(1))

    def fallbacks(self) -> dict[str, int]:
        """The number of packets that a worker had although the way was open, by why."""
        counts = [self._fallbacks.lookup(U32.pack(at)) or b"" for at in range(len(FALLBACKS))]
        sums = [sum(U64.unpack(each[at : at + 8])[0] for at in range(0, len(each), 8)) for each in counts]
        return dict(zip(FALLBACKS, sums, strict=True))


_NUMBER_BYTES: Final = 4
_TRIES: Final = 8


class Backs:
    """The clients to whom transceivers on other hosts answer past the workers, by the numbers of their flows."""

    def __init__(self, backs_fd: int, ways_fd: int) -> None:
        self._backs = BpfMap(backs_fd, NUMBER.size, BACK.size)
        self._ways = BpfMap(ways_fd, U32.size, WAY.size)

    def reaches(self, transceiver: int) -> bool:
        """Whether the transceiver has a way."""
        return self._ways.lookup(U32.pack(transceiver)) is not None

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
