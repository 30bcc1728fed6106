"""The encapsulation of media between an edge and a transceiver on another host: a head of 16 bytes before each RTP or
RTCP datagram, in place of the headers that it came with. Pure.

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +---------------+-----------------------------------------------+
    |    version    |                   zero                        |
    +---------------+-----------------------------------------------+
    |                         flow number                           |
    +---------------------------------------------------------------+
    |                                                               |
    +                           ticket                              +
    |                                                               |
    +---------------------------------------------------------------+

The ticket, 64 random bits of the worker that has the flow, is what each end knows the other by: whoever does not know
it can neither speak for the client nor to him. It is in clear: the network between the hosts is trusted no less than
the one before them, and what follows is SRTP. The edge's UDP port is ``port_of`` the flow, so that a receiver's queues
(RSS) share the flows; the transceiver sends the same head back to where it came from.

A head of flow number 0 has a ``Probe`` behind it: the edge asks twice a second whether the way can be used, and the
transceiver answers. Each proves with a MAC that it holds the cluster's keys, over the edge's address too: nobody else
can have media sent elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from typing import Final, Literal, NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wire.keys import ClusterKeys

__all__ = [
    "FIRST_PORT",
    "HEAD_BYTES",
    "MOST_BYTES",
    "NO_TICKET",
    "PORTS",
    "PROBE_BYTES",
    "VERSION",
    "Head",
    "Probe",
    "Probes",
    "digest",
    "new_ticket",
    "parse",
    "port_of",
]

VERSION: Final = 1
FIRST_PORT, PORTS = 20000, 1024  # of an edge
HEAD_BYTES: Final = 16
# A datagram that is longer goes by the workers: with the head, and over IPv6 (RFC 8200 section 5), it may not fit.
MOST_BYTES: Final = 1280 - 40 - 8 - HEAD_BYTES
PROBE_BYTES: Final = 64  # with the head
NO_TICKET: Final = bytes(8)
_HEAD = struct.Struct("!B3xI8s")
# Kind, open, transceiver, edge.
_PROBE, _MAC_BYTES = struct.Struct("!BBxxI8s"), 32
_KINDS: Final = {1: "ask", 2: "answer", 3: "hint"}


class Head(NamedTuple):
    """A head. ``number`` is below 2^32, and 0 is no flow's; ``ticket`` has 8 bytes."""

    number: int
    ticket: bytes

    def dump(self) -> bytes:
        """Its 16 bytes."""
        return _HEAD.pack(VERSION, self.number, self.ticket)


def parse(datagram: bytes) -> Head | None:
    """The head of a datagram; None where it has none of this version."""
    if len(datagram) < HEAD_BYTES:
        return None
    version, number, ticket = _HEAD.unpack_from(datagram)
    return Head(number, ticket) if version == VERSION and datagram[1:4] == bytes(3) else None


def port_of(number: int) -> int:
    """The edge's UDP port for what belongs to that flow."""
    return FIRST_PORT + number % PORTS


def new_ticket() -> bytes:
    """A ticket that nobody can guess, and never all zeroes, which is none."""
    while (ticket := secrets.token_bytes(len(NO_TICKET))) == NO_TICKET:
        pass
    return ticket


def digest(edge: bytes) -> bytes:
    """The 8 bytes by which probes call the edge of that name."""
    return hashlib.sha256(edge).digest()[:8]


class Probe(NamedTuple):
    """An ``ask`` of an edge, the ``answer`` of a transceiver, or a ``hint`` of an edge, for which nobody but the kernel
    has to do anything: it finds its neighbour out. ``clock_ns`` grows with each that an edge sends. The way is ``open``
    where the edge has had answers: the transceiver may then answer callers by it."""

    kind: Literal["ask", "answer", "hint"]
    open: bool
    transceiver: int
    edge: bytes
    clock_ns: int


class Probes:
    """Probes under the cluster's ``keys``: HMAC-SHA256 under a key that is derived from the link secret (HKDF, RFC
    5869)."""

    def __init__(self, keys: ClusterKeys) -> None:
        self._key = HKDF(SHA256(), length=32, salt=None, info=b"firsthop ways 1").derive(keys.link)

    def dump(self, probe: Probe, edge_address: bytes) -> bytes:
        """The ``PROBE_BYTES`` of a probe from, or to, that address of the edge's (18 bytes)."""
        kind = next(number for number, name in _KINDS.items() if name == probe.kind)
        head = Head(0, probe.clock_ns.to_bytes(8, "big")).dump()
        body = _PROBE.pack(kind, probe.open, probe.transceiver, probe.edge)
        return head + body + self._mac(head + body, edge_address)

    def read(self, datagram: bytes, edge_address: bytes) -> Probe | None:
        """The probe of somebody who holds the keys; None where it is none."""
        head = parse(datagram)
        said, mac = datagram[:-_MAC_BYTES], datagram[-_MAC_BYTES:]
        if head is None or head.number or len(datagram) != PROBE_BYTES:
            return None
        if not hmac.compare_digest(mac, self._mac(said, edge_address)):
            return None
        kind, is_open, transceiver, edge = _PROBE.unpack_from(said, HEAD_BYTES)
        name = _KINDS.get(kind)
        clock_ns = int.from_bytes(head.ticket, "big")
        return Probe(name, bool(is_open), transceiver, edge, clock_ns) if name else None  # type: ignore[arg-type]

    def _mac(self, said: bytes, edge_address: bytes) -> bytes:
        return hmac.new(self._key, said + edge_address, hashlib.sha256).digest()
