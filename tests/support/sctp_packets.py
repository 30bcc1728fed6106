"""SCTP packets that no honest peer sends."""

from __future__ import annotations

from struct import pack

from aiortc.rtcsctptransport import DataChunk
from google_crc32c import value as crc32c

FIRST, LAST, UNORDERED = 2, 1, 4
DCEP, STRING = 50, 51


def chunk(kind: int, flags: int, body: bytes) -> bytes:
    return pack("!BBH", kind, flags, 4 + len(body)) + body + bytes(-len(body) % 4)


def data(tsn: int, stream: int, sequence: int, user: bytes, flags: int = FIRST | LAST, protocol: int = STRING) -> bytes:
    return chunk(0, flags, pack("!LHHL", tsn % (1 << 32), stream, sequence & 0xFFFF, protocol) + user)


def packet(tag: int, *chunks: bytes) -> bytes:
    head, body = pack("!HHL", 5000, 5000, tag), b"".join(chunks)
    return head + pack("<L", crc32c(head + bytes(4) + body)) + body


def read(raw: bytes) -> DataChunk:
    """A DATA chunk as aiortc has it."""
    return DataChunk(flags=raw[1], body=raw[4 : int.from_bytes(raw[2:4], "big")])


def a_open(label: bytes = b"x") -> bytes:
    return pack("!BBHLHH", 3, 0, 0, 0, len(label), 0) + label
