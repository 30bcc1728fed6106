"""The twin of ``bpf/steer.c`` in Python: the specification to read first.

``tests/edge/xdp/test_classifier.py`` checks that both decide alike on every packet.

A pure function of the frame and the tables; no packet of a running edge comes through here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edge.relay import between
from edge.relay.between import Tickets
from wire.address import is_ipv4
from wire.ufrag import LENGTH, open_sealed

__all__ = ["Tables", "classify", "rewritten"]

_ETHERNET_BYTES, _TAG_BYTES, _IPV4_BYTES, _IPV6_BYTES, _UDP_BYTES = 14, 4, 20, 40, 8
_IPV4, _IPV6 = 0x0800, 0x86DD
_VLAN, _MOST_VLANS = (0x8100, 0x88A8), 2
_UDP = 17
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_MOST_EXTENSIONS = 5
_MAPPED = bytes(10) + b"\xff\xff"

# RFC 7983: what a datagram is, by its first byte. RFC 5761: which of RTP and RTCP, by its second.
_STUN, _RTP, _RTCP = range(4), range(128, 192), range(192, 224)
_RTP_BYTES, _RTCP_BYTES = 12, 8

_STUN_BYTES, _STUN_COOKIE, _BINDING_REQUEST = 20, 0x2112A442, 0x0001
_USERNAME, _MESSAGE_INTEGRITY = 0x0006, 0x0008
_MOST_ATTRIBUTES, _MOST_STUN_BYTES = 16, 2048
_VERSION_1 = ord("I")


@dataclass(frozen=True, slots=True)
class Tables:
    """The content of the kernel's maps and constants.

    ``address`` is the media address in 16 bytes or None for any, ``keys`` the ufrag keys by key id, ``sisters`` those
    of each other cluster whose calls are passed on, ``slots`` the CPU of each slot (None: nobody's), ``cpus`` those
    that have a queue. ``flows`` has the CPU by 18 byte address, ``ssrcs`` by SSRC.

    Buckets need a clock, which has no place here, so some are empty: ``limited`` are the 16 byte prefixes, as long as
    ``prefixes`` says in bits for IPv4 and IPv6, whose strangers may send nothing; ``relays`` says of each
    relay's prefix (16 bytes, and how many bits of them count) whether its own bucket is empty; ``named`` are the ufrags
    (24 bytes) and SSRCs that strangers may not name, and ``used_up`` what known flows may not send: (address,
    ``media``, ``checks`` or ``other``). ``express`` has the port of each flow, by address, that has proved itself and
    whose transceiver takes media itself; ``express_ports`` are all such ports; ``tickets`` are those of flows whose
    transceiver is on another host (``between.py``). ``shedding`` are the CPUs that shed all media, ``overrun`` those
    that shed all strangers: less of it is a matter of chance.
    """

    port: int
    address: bytes | None
    keys: Mapping[int, bytes]
    slots: Sequence[int | None]
    cpus: Collection[int]
    flows: Mapping[bytes, int]
    ssrcs: Mapping[int, int]
    limited: Collection[bytes] = frozenset()
    relays: Mapping[tuple[bytes, int], bool] = field(default_factory=dict)
    named: Collection[bytes | int] = frozenset()
    used_up: Collection[tuple[bytes, str]] = frozenset()
    express: Mapping[bytes, int] = field(default_factory=dict)
    express_ports: Collection[int] = frozenset()
    shedding: Collection[int] = frozenset()
    overrun: Collection[int] = frozenset()
    prefixes: tuple[int, int] = (32, 64)
    sisters: Sequence[Mapping[int, bytes]] = ()
    tickets: Tickets = Tickets({}, {}, {})  # noqa: RUF009  # a value


class _Datagram(NamedTuple):
    source: bytes  # 18 bytes
    payload: bytes
    plain: bool  # nothing is before UDP but Ethernet's and IP's own headers
    check: int  # UDP's checksum


def classify(frame: bytes, tables: Tables) -> tuple[str, int]:
    """(verdict, CPU): the verdict's label (``bpf/verdicts.py``) and the CPU under which it is counted, 0 unless it is
    ``of_core``."""
    parsed = _parse_frame(frame, tables)
    if parsed == "other_traffic":
        parsed = _come_back(frame, tables)
    if isinstance(parsed, str):
        return parsed, 0
    source, payload, *_ = parsed

    if payload[0] in _STUN:
        if not _is_stun(payload):
            return "stun_malformed", 0
        if _u16(payload, 0) == _BINDING_REQUEST:
            return _by_ufrag(source, payload, tables)
    if source in tables.flows:
        return _by_flow(source, "media" if payload[0] in _RTP else "other", tables, parsed)
    if payload[0] in _RTP:
        return _by_ssrc(source, payload, tables)
    return "unknown_flow", 0


def rewritten(frame: bytes, tables: Tables) -> bytes:
    """The frame as it is when it leaves the program: as it came, unless it is ``flow_expressed`` or
    ``back_expressed``."""
    label, _ = classify(frame, tables)
    if label == "back_expressed":
        assert tables.address is not None
        return between.at_client(tables.tickets, frame, tables.address + tables.port.to_bytes(2, "big"))
    if label != "flow_expressed":
        return frame
    parsed = _parse_frame(frame, tables)
    assert isinstance(parsed, _Datagram)
    if parsed.source in tables.tickets.flows:
        return between.sent_on(tables.tickets, frame)
    at = _ETHERNET_BYTES + (_IPV4_BYTES if _u16(frame, 12) == _IPV4 else _IPV6_BYTES)
    port = tables.express[parsed.source]
    before, check = _u16(frame, at + 2), _u16(frame, at + 6)
    if check:
        # RFC 1624, equation 3, and RFC 768: 0 would say that there is none.
        total = (0xFFFF - check) + (0xFFFF - before) + port
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        check = 0xFFFF - total or 0xFFFF
    return (
        frame[: at + 2] + port.to_bytes(2, "big") + frame[at + 4 : at + 6] + check.to_bytes(2, "big") + frame[at + 8 :]
    )


def _to(label: str, cpu: int | None, tables: Tables) -> tuple[str, int]:
    return (label, cpu) if cpu is not None and cpu in tables.cpus else ("no_core", 0)


def _come_back(frame: bytes, tables: Tables) -> str:
    """The verdict on what is neither for the media port nor for a transceiver of this host."""
    label = between.answers(tables.tickets, frame)
    # Without an address that is ours there is none from which a client could be answered.
    return "back_refused" if label == "back_expressed" and tables.address is None else label


def _expressed(datagram: _Datagram, tables: Tables) -> bool:
    source, payload, plain, check = datagram
    if source in tables.tickets.flows:
        return between.goes_on(tables.tickets, source, len(payload), plain, check)
    return plain and source in tables.express


def _by_flow(source: bytes, kind: str, tables: Tables, datagram: _Datagram | None = None) -> tuple[str, int]:
    cpu = tables.flows[source]
    if (source, kind) in tables.used_up:
        return "flow_limited", cpu
    if kind == "media" and datagram is not None and _expressed(datagram, tables):
        return "flow_expressed", 0
    if kind == "media" and cpu in tables.shedding:
        return "core_overloaded", cpu
    return _to("stun_steered" if kind == "checks" else "flow_steered", cpu, tables)


def _stranger(source: bytes, name: bytes | int, label: str, cpu: int | None, tables: Tables) -> tuple[str, int]:
    """The verdict on a stranger's packet. ``name`` is the ufrag or SSRC that the packet names."""
    if (relay := _relay(source, tables)) is not None:
        if tables.relays[relay]:
            return "relay_limited", 0
    elif _prefix(source, tables) in tables.limited:
        return "rate_limited", 0
    if name in tables.named:
        return "name_limited", 0
    if cpu is not None and cpu in tables.overrun:
        return "stranger_shed", cpu
    return _to(label, cpu, tables)


def _by_ufrag(source: bytes, message: bytes, tables: Tables) -> tuple[str, int]:
    username = _find_username(message)
    if isinstance(username, str):
        return username, 0
    clusters = (tables.keys, *tables.sisters)
    if username[LENGTH : LENGTH + 1] != b":" or not any(username[0] - _VERSION_1 in keys for keys in clusters):
        return "stun_bad_ufrag", 0
    opened = (open_sealed(username[:LENGTH], keys) for keys in clusters)
    route = next((route for route in opened if route is not None), None)
    if route is None:
        return "stun_bad_tag", 0
    if source in tables.flows:
        return _by_flow(source, "checks", tables)
    return _stranger(source, username[:LENGTH], "stun_steered", tables.slots[route.slot], tables)


def _by_ssrc(source: bytes, packet: bytes, tables: Tables) -> tuple[str, int]:
    if len(packet) < _RTCP_BYTES:
        return "rtp_unknown_ssrc", 0
    if packet[1] in _RTCP:
        ssrc = packet[4:8]
    elif len(packet) >= _RTP_BYTES:
        ssrc = packet[8:12]
    else:
        return "rtp_unknown_ssrc", 0
    name = int.from_bytes(ssrc, "big")
    if name not in tables.ssrcs:
        return "rtp_unknown_ssrc", 0
    return _stranger(source, name, "ssrc_steered", tables.ssrcs[name], tables)


def _prefix(source: bytes, tables: Tables) -> bytes:
    return _first_of(source, 96 + tables.prefixes[0] if is_ipv4(source) else tables.prefixes[1])


def _relay(source: bytes, tables: Tables) -> tuple[bytes, int] | None:
    """The longest prefix of a relay that the source is in."""
    within = [(first, bits) for first, bits in tables.relays if _first_of(source, bits) == first]
    return max(within, key=lambda relay: relay[1], default=None)


def _first_of(source: bytes, bits: int) -> bytes:
    """The first address, in 16 bytes, of those that share so many bits with the source."""
    host_bits = 128 - bits
    return (int.from_bytes(source[:16], "big") >> host_bits << host_bits).to_bytes(16, "big")


def _is_stun(message: bytes) -> bool:
    return (
        len(message) >= _STUN_BYTES
        and len(message) % 4 == 0
        and _u16(message, 2) + _STUN_BYTES == len(message)
        and int.from_bytes(message[4:8], "big") == _STUN_COOKIE
    )


def _find_username(message: bytes) -> bytes | str:
    """The value of USERNAME, or a verdict."""
    at = _STUN_BYTES
    for _ in range(_MOST_ATTRIBUTES):
        if at >= len(message):
            return "stun_no_username"
        if at > _MOST_STUN_BYTES:
            return "stun_malformed"
        kind, size = _u16(message, at), _u16(message, at + 2)
        value_at = at + 4
        at = value_at + (size + 3) // 4 * 4
        if at > len(message):
            return "stun_malformed"
        if kind == _USERNAME:
            return message[value_at : value_at + size]
        if kind == _MESSAGE_INTEGRITY:
            return "stun_no_username"
    return "stun_no_username"


def _parse_frame(frame: bytes, tables: Tables) -> _Datagram | str:
    if len(frame) < _ETHERNET_BYTES:
        return "other_traffic"
    kind, at = _u16(frame, 12), _ETHERNET_BYTES
    plain = kind not in _VLAN
    for _ in range(_MOST_VLANS):
        if kind not in _VLAN:
            break
        if len(frame) < at + _TAG_BYTES:
            return "malformed"
        kind, at = _u16(frame, at + 2), at + _TAG_BYTES
    if kind == _IPV4:
        return _parse_ipv4(frame[at:], tables, plain)
    if kind == _IPV6:
        return _parse_ipv6(frame[at:], tables, plain)
    return "other_traffic"


def _parse_ipv4(packet: bytes, tables: Tables, plain: bool) -> _Datagram | str:
    if len(packet) < _IPV4_BYTES:
        return "malformed"
    if packet[9] != _UDP or not _is_ours(_MAPPED + packet[16:20], tables):
        return "other_traffic"
    header, total, fragment = (packet[0] & 15) * 4, _u16(packet, 2), _u16(packet, 6)
    if fragment & 0x1FFF:
        return "other_traffic"
    if header < _IPV4_BYTES or total < header:
        return "malformed"
    unwanted = "fragment" if fragment & 0x2000 else "ip_options" if header > _IPV4_BYTES else None
    return _parse_udp(packet[header:], _MAPPED + packet[12:16], total - header, unwanted, tables, plain)


def _parse_ipv6(packet: bytes, tables: Tables, plain: bool) -> _Datagram | str:
    if len(packet) < _IPV6_BYTES:
        return "malformed"
    if not _is_ours(packet[24:40], tables):
        return "other_traffic"
    room, following, at = _u16(packet, 4), packet[6], _IPV6_BYTES
    unwanted = None
    extensions = 0
    while following != _UDP:
        if following not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION):
            return "other_traffic"
        if extensions == _MOST_EXTENSIONS:
            return "ip_options"
        extensions += 1
        if len(packet) < at + 8:
            return "malformed"
        size = 8
        if following == _FRAGMENT:
            if _u16(packet, at + 2) & 0xFFF8:
                return "other_traffic"
            unwanted = "fragment"
        else:
            size += packet[at + 1] * 8
        if size > room:
            return "malformed"
        room, following, at = room - size, packet[at], at + size
    return _parse_udp(packet[at:], packet[8:24], room, unwanted, tables, plain and not extensions)


def _parse_udp(
    segment: bytes, host: bytes, room: int, unwanted: str | None, tables: Tables, plain: bool
) -> _Datagram | str:
    """The datagram, or a verdict. ``room`` is what the IP header leaves for UDP, ``unwanted`` the verdict to give if
    the packet is for us."""
    if len(segment) < _UDP_BYTES:
        return "malformed"
    if _u16(segment, 2) != tables.port:
        return "express_port_refused" if _u16(segment, 2) in tables.express_ports else "other_traffic"
    if unwanted is not None:
        return unwanted
    length = _u16(segment, 4)
    if length < _UDP_BYTES or length > room or length > len(segment):
        return "malformed"
    if length == _UDP_BYTES:
        return "empty"
    return _Datagram(host + segment[:2], segment[_UDP_BYTES:length], plain, _u16(segment, 6))


def _is_ours(host: bytes, tables: Tables) -> bool:
    return tables.address is None or host == tables.address


def _u16(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]
