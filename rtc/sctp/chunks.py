"""The reader of SCTP packets: it makes aiortc's chunks, and bounds the work for each byte (RFC 9260 section 3).

aiortc trusts what it reads: a parameter of length 0 keeps it for ever, and a body that is cut off raises. Here a packet
is read whole or not at all, in one pass.
"""

from __future__ import annotations

from struct import unpack_from

from aiortc.rtcsctptransport import (
    AbortChunk,
    Chunk,
    CookieAckChunk,
    CookieEchoChunk,
    DataChunk,
    ErrorChunk,
    ForwardTsnChunk,
    HeartbeatAckChunk,
    HeartbeatChunk,
    InitAckChunk,
    InitChunk,
    ReconfigChunk,
    SackChunk,
    ShutdownAckChunk,
    ShutdownChunk,
    ShutdownCompleteChunk,
)
from google_crc32c import value as crc32c

__all__ = ["Malformed", "parse"]

_MOST_BYTES = 1500
_HEADER, _CHUNK_HEADER = 12, 4
_MOST_PARAMETERS = 32
# What is there of a chunk's body before its parameters, if it may have any.
_WITH_PARAMETERS: dict[type[Chunk], int] = {
    InitChunk: 16,
    InitAckChunk: 16,
    HeartbeatChunk: 0,
    HeartbeatAckChunk: 0,
    AbortChunk: 0,
    ErrorChunk: 0,
    ReconfigChunk: 0,
}
_OTHERS: tuple[type[Chunk], ...] = (
    DataChunk,
    SackChunk,
    ForwardTsnChunk,
    CookieEchoChunk,
    CookieAckChunk,
    ShutdownChunk,
    ShutdownAckChunk,
    ShutdownCompleteChunk,
)
_KINDS: dict[int, type[Chunk]] = {kind.type: kind for kind in (*_WITH_PARAMETERS, *_OTHERS)}
# RFC 6525 section 3.1: two requests, or two responses. What they have before their streams.
_MOST_REQUESTS = 2
_REQUESTS = {13: 12, 16: 8, 17: 8}


class Malformed(ValueError):
    """The error that bytes are no SCTP packet that can be acted on."""


def parse(packet: bytes) -> tuple[int, list[Chunk]]:
    """The verification tag and the chunks of a packet. Of a kind that is answered or acknowledged as a whole, only the
    first in a packet counts, so that no packet draws more than it is worth. Raises Malformed."""
    if not _HEADER + _CHUNK_HEADER <= len(packet) <= _MOST_BYTES:
        raise Malformed(f"{len(packet)} bytes")
    tag, checksum = int.from_bytes(packet[4:8], "big"), int.from_bytes(packet[8:12], "little")
    if checksum != crc32c(packet[:8] + bytes(4) + packet[12:]):
        raise Malformed("checksum")
    chunks: list[Chunk] = []
    seen: set[int] = set()
    at = _HEADER
    while at + _CHUNK_HEADER <= len(packet):
        kind, flags, length = unpack_from("!BBH", packet, at)
        if length < _CHUNK_HEADER or at + length > len(packet):
            raise Malformed(f"a chunk of {length} bytes")
        found = _KINDS.get(kind)
        if found is not None and (found is DataChunk or kind not in seen):
            chunks.append(_chunk(found, flags, packet[at + _CHUNK_HEADER : at + length]))
            seen.add(kind)
        at += length + -length % 4
    if len(chunks) > 1 and (InitChunk.type in seen or InitAckChunk.type in seen):
        raise Malformed("INIT is not alone")  # RFC 9260 section 6.10
    return tag, chunks


def _chunk(kind: type[Chunk], flags: int, body: bytes) -> Chunk:
    if (before := _WITH_PARAMETERS.get(kind)) is not None:
        _check_parameters(body, before, requests=kind is ReconfigChunk)
    elif kind is DataChunk:
        _check(len(body) >= 12)
    elif kind is SackChunk:
        _check(len(body) >= 12)
        gaps, duplicates = unpack_from("!HH", body, 8)
        _check(len(body) >= 12 + 4 * (gaps + duplicates))
    elif kind is ForwardTsnChunk:
        _check(len(body) >= 4 and len(body) % 4 == 0)
    elif kind is ShutdownChunk:
        _check(len(body) >= 4)
    return kind(flags=flags, body=body)


def _check_parameters(body: bytes, before: int, *, requests: bool) -> None:
    _check(len(body) >= before)
    at, count = before, 0
    while at + 4 <= len(body):
        kind, length = unpack_from("!HH", body, at)
        count += 1
        _check(4 <= length <= len(body) - at and count <= (_MOST_REQUESTS if requests else _MOST_PARAMETERS))
        if requests and kind in _REQUESTS:
            _check(length - 4 >= _REQUESTS[kind] and length % 2 == 0)
        at += length + -length % 4


def _check(holds: bool) -> None:
    if not holds:
        raise Malformed("a chunk that is cut off, or says more than it has")
