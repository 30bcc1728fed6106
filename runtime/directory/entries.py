"""Entries of the directory as bytes: a head of fixed length, which the store's scripts compare, and msgpack. Pure.

The head is 16 hexadecimal digits of the process's generation, 16 of a digest of its endpoint, and ``d`` or ``-`` for
whether it drains.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, overload

import msgspec

from runtime.address import Address, Endpoint
from runtime.directory.store import MAX_ENTRY_BYTES, Entry, name_of
from wire.report import EdgeReport, Report

__all__ = ["HEAD_BYTES", "pack", "unpack"]

HEAD_BYTES = 33
_WILDCARDS = ("0.0.0.0", "::")

_encode = msgspec.msgpack.Encoder().encode
_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    "transceiver": msgspec.msgpack.Decoder(Report),
    "edge": msgspec.msgpack.Decoder(EdgeReport),
}


def pack(entry: Entry, host: str = "") -> bytes:
    """The entry as bytes. ``host`` tells a path that is an endpoint on one host from the same on another. Raises
    ValueError where that is more than MAX_ENTRY_BYTES."""
    place = entry.endpoint if entry.endpoint.startswith("tcp://") else f"{host} {entry.endpoint}"
    digest = hashlib.blake2b(place.encode(), digest_size=8).hexdigest()
    packed = f"{entry.generation:016x}{digest}{'d' if entry.draining else '-'}".encode() + _encode(entry)
    if len(packed) > MAX_ENTRY_BYTES:
        raise ValueError(f"an entry of {len(packed)} bytes: at most {MAX_ENTRY_BYTES}")
    return packed


@overload
def unpack(kind: Literal["transceiver"], name: str, packed: bytes | memoryview) -> Report: ...
@overload
def unpack(kind: Literal["edge"], name: str, packed: bytes | memoryview) -> EdgeReport: ...
@overload
def unpack(kind: str, name: str, packed: bytes | memoryview) -> Entry: ...
def unpack(kind: str, name: str, packed: bytes | memoryview) -> Entry:
    """The entry of that kind and name in these bytes. Raises ValueError where it is none."""
    try:
        entry: Entry = _decoders[kind].decode(memoryview(packed)[HEAD_BYTES:])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        raise ValueError(f"no entry: {e}") from None
    if name_of(entry) != (kind, name):
        raise ValueError("an entry under the name of another")
    if isinstance(entry, EdgeReport):
        Address(entry.media)
    if isinstance(entry, Report) or entry.endpoint:
        endpoint = Endpoint(entry.endpoint)
        if endpoint.address is not None and endpoint.address.host in _WILDCARDS:
            raise ValueError(f"{entry.endpoint} is no endpoint to connect to")
    return entry
