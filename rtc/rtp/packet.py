"""RTP packets (RFC 3550 section 5.1), parsed and built for one audio stream; RTCP comes from aiortc."""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["Packet", "build", "extension", "is_rtcp", "is_rtp_or_rtcp", "parse", "sequence_distance", "ssrc_of"]

_ONE_BYTE = b"\xbe\xde"
_MOST_EXTENSION_BYTES = 240  # 14 elements of 17 bytes: anything longer is padding, looked through byte by byte
_HEADER = struct.Struct("!BBHII")
_PLAIN = 0x80  # the first byte of a packet without padding, extensions and contributing sources
_tuple = tuple.__new__  # makes a Packet in half the time of Packet(...), which is a function of Python's


class Packet(NamedTuple):
    """``timestamp`` in units of the codec's RTP clock (48,000 a second for Opus, whatever it carries); ``extensions``
    as they stand, of the one-byte form (RFC 8285 section 4.2)."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    extensions: bytes = b""


def is_rtp_or_rtcp(datagram: bytes) -> bool:
    """First byte 128 to 191 (RFC 7983)."""
    return len(datagram) >= 8 and 128 <= datagram[0] <= 191


def is_rtcp(datagram: bytes) -> bool:
    """Tells RTCP from RTP on one port (RFC 5761 section 4)."""
    return 192 <= datagram[1] <= 223


def ssrc_of(datagram: bytes) -> int | None:
    """The SSRC that an RTP packet claims, encrypted or not; None for RTCP and everything else."""
    if len(datagram) < 12 or not is_rtp_or_rtcp(datagram) or is_rtcp(datagram):
        return None
    return int.from_bytes(datagram[8:12], "big")


def parse(data: bytes) -> Packet | None:
    """The packet in ``data`` (already decrypted), or None where it is malformed."""
    if len(data) < 12 or data[0] >> 6 != 2:
        return None
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if first == _PLAIN:
        return _tuple(Packet, (second & 127, second > 127, sequence, timestamp, ssrc, data[12:], b""))
    start, end, extensions = 12 + 4 * (first & 15), len(data), b""
    if first & 0x10:
        if end < start + 4:
            return None
        body = start + 4
        start = body + 4 * int.from_bytes(data[start + 2 : body], "big")
        if data[body - 4 : body - 2] == _ONE_BYTE and start - body <= _MOST_EXTENSION_BYTES:
            extensions = data[body:start]
    if first & 0x20:
        padding = data[-1]
        if padding == 0:
            return None
        end -= padding
    if end < start:
        return None
    return _tuple(Packet, (second & 127, second > 127, sequence, timestamp, ssrc, data[start:end], extensions))


def extension(extensions: bytes, number: int) -> bytes | None:
    """The element ``number`` (1 to 14) of one-byte header extensions, or None where it is not there."""
    at = 0
    while at < len(extensions):
        head = extensions[at]
        if head >> 4 == 15:
            return None  # the rest is to be ignored
        length = (head & 15) + 1 if head else 0
        if head >> 4 == number:
            found = extensions[at + 1 : at + 1 + length]
            return found if len(found) == length else None
        at += 1 + length
    return None


def build(payload_type: int, marker: bool, sequence: int, timestamp: int, ssrc: int, payload: bytes) -> bytes:
    """A packet without extensions. ``sequence`` and ``timestamp`` wrap by themselves."""
    second = payload_type | 128 if marker else payload_type
    return _HEADER.pack(_PLAIN, second, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload


def sequence_distance(a: int, b: int) -> int:
    """The distance by which ``b`` is ahead of ``a``, -32768 to 32767, across the wrap (RFC 1982)."""
    return ((b - a + 0x8000) & 0xFFFF) - 0x8000
