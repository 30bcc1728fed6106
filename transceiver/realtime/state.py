"""The state of the Realtime protocol as bytes, with a version of its own. Pure."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

__all__ = ["VERSION", "decoded", "encoded"]

VERSION = 2  # changes with anything that a part of the state has, in whatever depth

_T = TypeVar("_T")


class _Envelope(msgspec.Struct, array_like=True):
    version: int
    state: msgspec.Raw


def encoded(state: Any) -> bytes:
    """A part of the state and its version, as msgpack."""
    encode = msgspec.msgpack.encode
    return encode(_Envelope(VERSION, msgspec.Raw(encode(state))))


def decoded(data: bytes, kind: type[_T]) -> _T:
    """The part that ``encoded`` gave. Raises ValueError with one line where it is none, or of another version."""
    envelope = msgspec.msgpack.decode(data, type=_Envelope)
    if envelope.version != VERSION:
        raise ValueError(f"a conversation of version {envelope.version} cannot be taken up: {VERSION} is known here")
    return msgspec.msgpack.decode(envelope.state, type=kind)
