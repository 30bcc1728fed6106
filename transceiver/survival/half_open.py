"""A call that has been answered and is not connected yet, as a value in the vault: what the answer has promised. Pure.

It has the certificate's key and the password of ICE, so that another process can do what the client expects of the one
that answered. Nothing of DTLS is in it: that begins anew.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from rtc.state import AnsweredState
from transceiver.state import StateError

__all__ = ["Answered", "is_one", "read", "written"]

VERSION = 1  # changes with anything that an Answered has, in whatever depth
_MOST_BYTES = 256 << 10  # an SDP offer has 64 KiB at most, and most sessions little more than their instructions
_MARK = b"\xc1"  # with which no msgpack begins, and so no record of a connected call


class Answered(Struct, frozen=True, array_like=True):
    """A call that was answered. ``ssrc`` is that of our voice, ``protocol`` the session's configuration, ``age_s`` how
    long ago it was placed; the others are as of ``Session`` and ``Talk``."""

    transport: AnsweredState
    ssrc: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
    agent: str
    protocol: bytes
    owner: str
    holder: str
    age_s: float

    @property
    def ufrag(self) -> str:
        """The ufrag that names the call."""
        return self.transport.ufrag


class _Record(Struct, frozen=True, array_like=True):
    version: int
    at: float
    tries: int
    answered: msgspec.Raw


def written(answered: Answered, at: float, tries: int = 0) -> bytes:
    """The bytes of it. ``at`` is the time of the value on this machine's monotonic clock, in seconds, and ``tries`` how
    often it was taken up. Raises StateError where it is too large."""
    encode = msgspec.msgpack.encode
    data = _MARK + encode(_Record(VERSION, at, tries, msgspec.Raw(encode(answered))))
    if len(data) > _MOST_BYTES:
        raise StateError(f"a call that is not connected has {len(data)} bytes, and {_MOST_BYTES} are kept")
    return data


def is_one(data: bytes) -> bool:
    """Whether these are bytes of ``written``, of whatever version."""
    return data.startswith(_MARK)


def read(data: bytes) -> tuple[Answered, float, int]:
    """What ``written`` was given. Raises StateError where it is none, or of another version."""
    try:
        record = msgspec.msgpack.decode(data[len(_MARK) :], type=_Record)
        if record.version == VERSION:
            return msgspec.msgpack.decode(record.answered, type=Answered), record.at, record.tries
    except (msgspec.MsgspecError, ValueError, RecursionError) as e:
        raise StateError(f"no call that was answered: {e}") from None
    raise StateError(f"a call that was answered by version {record.version}: {VERSION} is known here")
