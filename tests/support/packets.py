"""Packets made by hand: each layer a function over the bytes of the next. A field that a test wants wrong can be
given; those left out are right."""

from __future__ import annotations

import socket
import struct

MACS = bytes.fromhex("020000000001") + bytes.fromhex("020000000002")
CLIENT, EDGE = "198.18.0.2", "198.18.0.1"
CLIENT_V6, EDGE_V6 = "2001:db8::2", "2001:db8::1"
CLIENT_PORT, MEDIA_PORT = 50000, 3478

IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
CUSTOMER_TAG, SERVICE_TAG = 0x8100, 0x88A8
UDP, TCP, ICMPV6 = 17, 6, 58
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
MORE_FRAGMENTS = 0x2000


def ethernet(payload: bytes, kind: int = IPV4, macs: bytes = MACS) -> bytes:
    """A frame. ``macs`` is the destination's, then the source's."""
    return macs + struct.pack("!H", kind) + payload


def tagged(frame: bytes, *kinds: int, vlan: int = 7) -> bytes:
    """The frame with these VLAN tags in front, the outermost first."""
    tags = b"".join(struct.pack("!HH", kind, vlan) for kind in kinds)
    return frame[:12] + tags + frame[12:]


def ipv4(
    payload: bytes,
    src: str = CLIENT,
    dst: str = EDGE,
    *,
    protocol: int = UDP,
    options: bytes = b"",
    fragment: int = 0,
    header_words: int | None = None,
    total: int | None = None,
) -> bytes:
    """A packet. ``fragment`` is the 16 bit field with flags and offset."""
    words = 5 + len(options) // 4 if header_words is None else header_words
    length = 20 + len(options) + len(payload) if total is None else total
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | words,
        0,
        length,
        0,
        fragment,
        64,
        protocol,
        0,
        socket.inet_aton(src),
        socket.inet_aton(dst),
    )
    head += options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(
    payload: bytes,
    src: str = CLIENT_V6,
    dst: str = EDGE_V6,
    *,
    following: int = UDP,
    length: int | None = None,
) -> bytes:
    """A packet. ``following`` is the next header's number."""
    size = len(payload) if length is None else length
    return (
        struct.pack("!IHBB", 6 << 28, size, following, 64)
        + socket.inet_pton(socket.AF_INET6, src)
        + socket.inet_pton(socket.AF_INET6, dst)
        + payload
    )


def extended(
    payload: bytes, *headers: int, src: str = CLIENT_V6, following: int = UDP, size: int = 8, cut: int = 0
) -> bytes:
    """A frame over IPv6 to the edge with these extension headers of ``size`` bytes, a multiple of 8, in front of
    ``payload``; ``cut`` bytes are missing at the end. A fragment header has 8 bytes and is that of a first fragment."""
    chain = b""
    for at, kind in enumerate(headers):
        after = headers[at + 1] if at + 1 < len(headers) else following
        rest = struct.pack("!xHI", 1, 9) if kind == FRAGMENT else bytes([size // 8 - 1]) + bytes(size - 2)
        chain += bytes([after]) + rest
    packet = ipv6(chain + payload, src, following=(*headers, following)[0])
    return ethernet(packet[: len(packet) - cut], IPV6)


def udp(payload: bytes, sport: int = CLIENT_PORT, dport: int = MEDIA_PORT, *, length: int | None = None) -> bytes:
    """A datagram without a checksum, which IPv4 allows."""
    return struct.pack("!HHHH", sport, dport, 8 + len(payload) if length is None else length, 0) + payload


def datagram(payload: bytes, src: str = CLIENT, sport: int = CLIENT_PORT) -> bytes:
    """A whole frame over IPv4, or IPv6 where ``src`` is such an address, to the media port."""
    if ":" in src:
        return ethernet(ipv6(udp(payload, sport), src), IPV6)
    return ethernet(ipv4(udp(payload, sport), src))


def attribute(kind: int, value: bytes) -> bytes:
    """A STUN attribute, padded."""
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def stun(*attributes: bytes, kind: int = 0x0001, cookie: int = 0x2112A442, length: int | None = None) -> bytes:
    """A STUN message, a binding request unless ``kind`` says otherwise."""
    body = b"".join(attributes)
    return struct.pack("!HHI12s", kind, len(body) if length is None else length, cookie, b"transaction!") + body


def rtp(ssrc: int, payload: bytes = bytes(160), *, payload_type: int = 111, timestamp: int = 960) -> bytes:
    """An RTP packet; add 128 to ``payload_type`` for the marker bit."""
    return struct.pack("!BBHII", 0x80, payload_type, 1, timestamp, ssrc) + payload


def rtcp(ssrc: int, *, payload_type: int = 201) -> bytes:
    """An empty RTCP receiver report."""
    return struct.pack("!BBHI", 0x80, payload_type, 1, ssrc)


def udp_sum(frame: bytes) -> int:
    """0 where the UDP checksum of a frame without tags, options and extension headers is right, or what it should be
    where the field is 0 (RFC 768, RFC 8200 section 8.1)."""
    at, addresses = (34, frame[26:34]) if frame[12:14] == b"\x08\0" else (54, frame[22:54])
    (size,) = struct.unpack_from("!H", frame, at + 4)
    segment = frame[at : at + size] + bytes(size % 2)
    return checksum(addresses + struct.pack("!HH", UDP, size) + segment)


def with_udp_sum(frame: bytes, total: int | None = None) -> bytes:
    """The frame with the right UDP checksum, or with ``total``."""
    at = 40 if frame[12:14] == b"\x08\0" else 60
    value = (udp_sum(frame[:at] + bytes(2) + frame[at + 2 :]) or 0xFFFF) if total is None else total
    return frame[:at] + struct.pack("!H", value) + frame[at + 2 :]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
