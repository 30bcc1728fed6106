"""The twin of ``bpf/between.c`` in Python: media between an edge and transceivers on other hosts,
past the workers. Pure.

A frame to a transceiver, or from one, gets other headers for those that it has; what is not one whole, plain datagram
stays as it is. ``classify.py`` says which frames come here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from wire.address import is_ipv4
from wire.encapsulation import FIRST_PORT, HEAD_BYTES, MOST_BYTES, PORTS, PROBE_BYTES, VERSION, Head, port_of

__all__ = ["Back", "Ticket", "Tickets", "Way", "answers", "at_client", "goes_on", "sent_on"]

_ETHERNET_BYTES, _IPV4_BYTES, _IPV6_BYTES, _UDP_BYTES = 14, 20, 40, 8
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_MAPPED = bytes(10) + b"\xff\xff"
_UDP, _HOPS = 17, 64


@dataclass(frozen=True, slots=True)
class Way:
    """The way to a transceiver at ``address`` from the edge's ``source`` (16 bytes), by those addresses of Ethernet.
    Media goes there while it is ``open``."""

    address: bytes
    source: bytes
    to: bytes
    by: bytes
    mtu: int = 1500
    open: bool = True


class Ticket(NamedTuple):
    """What a flow's media carries to the transceiver of that number."""

    number: int
    ticket: bytes
    transceiver: int


@dataclass(frozen=True, slots=True)
class Back:
    """The way back to the ``client``, by those addresses of Ethernet; empty where he was not seen yet."""

    ticket: bytes
    client: bytes
    transceiver: int
    to: bytes = b""
    by: bytes = b""


@dataclass(frozen=True, slots=True)
class Tickets:
    """The content of the kernel's maps: ``flows`` by address, ``ways`` by transceiver, ``backs`` by number, and the
    edge's own addresses (16 bytes) on the way to transceivers."""

    flows: Mapping[bytes, Ticket]
    ways: Mapping[int, Way]
    backs: Mapping[int, Back]
    inners: frozenset[bytes] = frozenset()


class _Plain(NamedTuple):
    """A UDP datagram behind Ethernet's and IP's own headers; ``room`` is what IP's leaves for it, and ``at`` its
    place."""

    source: bytes  # 18 bytes, as is the destination
    to: bytes
    at: int
    room: int

    def length(self, frame: bytes) -> int:
        return _u16(frame, self.at + 4)


def goes_on(tickets: Tickets, flow: bytes, payload_bytes: int, plain: bool, check: int) -> bool:
    """Whether media of that flow goes to another host, where its datagram has so many bytes and that checksum."""
    ticket = tickets.flows.get(flow)
    way = tickets.ways.get(ticket.transceiver) if ticket is not None else None
    if way is None or not way.open or not plain or payload_bytes > MOST_BYTES:
        return False
    fits = _ip_bytes(way.address) + _UDP_BYTES + HEAD_BYTES + payload_bytes <= way.mtu
    return fits and (check != 0 or is_ipv4(way.address))


def sent_on(tickets: Tickets, frame: bytes) -> bytes:
    """The frame as it leaves for the transceiver."""
    plain = _plain(frame)
    assert plain is not None
    ticket = tickets.flows[plain.source]
    way = tickets.ways[ticket.transceiver]
    head = Head(ticket.number, ticket.ticket).dump()
    source = way.source + port_of(ticket.number).to_bytes(2, "big")
    return _rewritten(frame, plain, way.to + way.by, source, way.address, added=head)


def answers(tickets: Tickets, frame: bytes) -> str:
    """The verdict on a frame that is for nobody else, as ``classify`` has it."""
    plain = _plain(frame)
    if plain is None or plain.to[:16] not in tickets.inners:
        return "other_traffic"
    port = int.from_bytes(plain.to[16:], "big")
    if not FIRST_PORT <= port < FIRST_PORT + PORTS:
        return "other_traffic"
    length = plain.length(frame)
    datagram = frame[plain.at + _UDP_BYTES : plain.at + length]
    if length > plain.room or length <= _UDP_BYTES + HEAD_BYTES or plain.at + length > len(frame):
        return "back_refused"
    if datagram[0] != VERSION:
        return "back_refused"
    number, ticket = int.from_bytes(datagram[4:8], "big"), datagram[8:16]
    if number == 0:
        return "way_answered" if len(datagram) == PROBE_BYTES and _is_whole(frame, plain) else "back_refused"
    back = tickets.backs.get(number)
    if back is None or back.ticket != ticket or not back.to:
        return "back_refused"
    way = tickets.ways.get(back.transceiver)
    if way is None or plain.source != way.address or plain.to != way.source + port_of(number).to_bytes(2, "big"):
        return "back_refused"
    if len(datagram) - HEAD_BYTES > MOST_BYTES or not (_u16(frame, plain.at + 6) or is_ipv4(back.client)):
        return "back_refused"
    return "back_expressed"


def at_client(tickets: Tickets, frame: bytes, media: bytes) -> bytes:
    """The frame as it leaves for the client, from the edge's address ``media`` (18 bytes)."""
    plain = _plain(frame)
    assert plain is not None
    at = plain.at + _UDP_BYTES
    back = tickets.backs[int.from_bytes(frame[at + 4 : at + 8], "big")]
    return _rewritten(frame, plain, back.to + back.by, media, back.client, removed=frame[at : at + HEAD_BYTES])


def _plain(frame: bytes) -> _Plain | None:
    ip = frame[_ETHERNET_BYTES:]
    if frame[12:14] == _IPV4 and len(ip) >= _IPV4_BYTES + _UDP_BYTES:
        if ip[0] & 15 != _IPV4_BYTES // 4 or ip[9] != _UDP or _u16(ip, 6) & 0x3FFF:
            return None
        size, room, hosts = _IPV4_BYTES, _u16(ip, 2) - _IPV4_BYTES, (_MAPPED + ip[12:16], _MAPPED + ip[16:20])
        room %= 1 << 32  # a length below the header's own is a large number
    elif frame[12:14] == _IPV6 and len(ip) >= _IPV6_BYTES + _UDP_BYTES:
        if ip[6] != _UDP:
            return None
        size, room, hosts = _IPV6_BYTES, _u16(ip, 4), (ip[8:24], ip[24:40])
    else:
        return None
    return _Plain(hosts[0] + ip[size : size + 2], hosts[1] + ip[size + 2 : size + 4], _ETHERNET_BYTES + size, room)


def _rewritten(
    frame: bytes, plain: _Plain, macs: bytes, source: bytes, to: bytes, *, added: bytes = b"", removed: bytes = b""
) -> bytes:
    """The frame with these headers, with ``added`` before its payload or without the first bytes, ``removed``; what
    stands behind the datagram stays."""
    before, check = plain.length(frame), _u16(frame, plain.at + 6)
    length = before + len(added) - len(removed)
    if check:
        # RFC 1624, equation 3; the length is in UDP's own header and in the one that stands for IP's. 0 would say that
        # there is none (RFC 768).
        total = (0xFFFF - check) + _sum(source + to + added) + 2 * length
        total -= _sum(plain.source + plain.to + removed) + 2 * before
        check = 0xFFFF - (total % 0xFFFF or 0xFFFF) or 0xFFFF
    udp = source[16:] + to[16:] + length.to_bytes(2, "big") + check.to_bytes(2, "big")
    rest = added + frame[plain.at + _UDP_BYTES + len(removed) :]
    if is_ipv4(to):
        head = bytes([0x45, 0]) + (_IPV4_BYTES + length).to_bytes(2, "big") + b"\0\0\x40\0" + bytes([_HOPS, _UDP])
        hosts = source[12:16] + to[12:16]
        ip = head + (0xFFFF - (_sum(head + hosts) % 0xFFFF or 0xFFFF)).to_bytes(2, "big") + hosts
        return macs + _IPV4 + ip + udp + rest
    ip = b"\x60\0\0\0" + length.to_bytes(2, "big") + bytes([_UDP, _HOPS]) + source[:16] + to[:16]
    return macs + _IPV6 + ip + udp + rest


def _is_whole(frame: bytes, plain: _Plain) -> bool:
    """Whether the datagram has a checksum, and the right one (RFC 768)."""
    length = plain.length(frame)
    segment = frame[plain.at : plain.at + length]
    total = _sum(plain.source[:16] + plain.to[:16] + segment) + length + _UDP
    return _u16(segment, 6) != 0 and total % 0xFFFF == 0


def _sum(data: bytes) -> int:
    return sum(_u16(data, at) for at in range(0, len(data), 2))


def _ip_bytes(address: bytes) -> int:
    return _IPV4_BYTES if is_ipv4(address) else _IPV6_BYTES


def _u16(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]
