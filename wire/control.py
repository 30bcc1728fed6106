"""What the fields of control messages may be: types, lengths and ranges, checked where they arrive.

Whoever has the cluster's key file can speak on a link; a fault or an intruder at one end must cost the other end
nothing. Each message that an edge reads has a struct here. What a transceiver reads is described by its handlers'
annotations (``handled_by``).
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from wire.address import SIZE as ADDRESS_BYTES
from wire.frames import Control, WireError

__all__ = [
    "MAX_SSRCS",
    "Media",
    "PathDown",
    "PathUp",
    "Request",
    "Stream",
    "Text",
    "Ufrag",
    "check_reply",
    "check_unasked",
    "handled_by",
    "read",
]

MAX_SSRCS = 8  # of one path

Ufrag = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"\A[A-Za-z0-9+/]+\Z")]  # RFC 8839 section 5.4
Text = Annotated[str, Meta(max_length=256)]
Request = Annotated[int, Meta(ge=0)]
Stream = Annotated[int, Meta(ge=0, le=65534)]  # of SCTP's; 65535 is none (RFC 8832 section 6)
Media = tuple[Text, Annotated[int, Meta(ge=1, le=65535)]]
_Address = Annotated[bytes, Meta(min_length=ADDRESS_BYTES, max_length=ADDRESS_BYTES)]
_Ssrc = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]

T = TypeVar("T")


class PathUp(msgspec.Struct, frozen=True):
    """transceiver -> worker."""

    address: _Address
    ufrag: Ufrag
    ssrcs: Annotated[list[_Ssrc], Meta(max_length=MAX_SSRCS)]
    spare_ms: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    proved: bool = True


class PathDown(msgspec.Struct, frozen=True):
    """transceiver -> worker."""

    address: _Address


class _Answer(msgspec.Struct, frozen=True):
    ufrag: Ufrag
    sdp: Annotated[str, Meta(max_length=1 << 17)]


class _Opened(msgspec.Struct, frozen=True):
    ufrag: Ufrag


class _Watching(msgspec.Struct, frozen=True):
    session: dict[str, Any] | None = None


class _Ended(msgspec.Struct, frozen=True):
    pass


class _Checked(msgspec.Struct, frozen=True):
    pass


class _Ice(msgspec.Struct, frozen=True):
    ufrag: Ufrag
    fragment: Annotated[str, Meta(max_length=1 << 14)]


class _Refused(msgspec.Struct, frozen=True):
    code: Text
    message: Annotated[str, Meta(max_length=1 << 16)]
    param: Text | None = None


class _Health(msgspec.Struct, frozen=True):
    sessions: Annotated[int, Meta(ge=0, le=1 << 32)]
    agents: Annotated[list[Text], Meta(max_length=4096)] = []


class _Event(msgspec.Struct, frozen=True):
    ufrag: Ufrag
    event: str  # as long as a message of events may be


class _Closed(msgspec.Struct, frozen=True):
    ufrag: Ufrag
    reason: Annotated[str, Meta(max_length=1 << 16)]


_REPLIES: dict[str, tuple[str, type]] = {
    "session.offer": ("session.answer", _Answer),
    "session.open": ("session.opened", _Opened),
    "session.watch": ("session.watching", _Watching),
    "session.end": ("session.ended", _Ended),
    "session.check": ("session.checked", _Checked),
    "session.ice": ("session.ice", _Ice),
    "health": ("health", _Health),
}
_LATE = dict(_REPLIES.values())
_UNASKED: dict[str, type] = {"session.event": _Event, "session.closed": _Closed}


def read(kind: type[T], fields: Mapping[str, Any]) -> T:
    """``fields`` as a ``kind``. Raises WireError, which names the field."""
    try:
        return msgspec.convert(fields, kind, builtin_types=(bytes,))
    except (msgspec.ValidationError, RecursionError) as e:
        raise WireError(str(e)[:200]) from None


def check_reply(asked: str | None, reply: Control) -> None:
    """Whether ``reply`` may follow a request of the type ``asked``, or of any type for None. Raises WireError."""
    if reply.type == "session.refused":
        read(_Refused, reply.fields)
        return
    expected = _LATE if asked is None else dict([_REPLIES[asked]])
    if reply.type not in expected:
        raise WireError(f"{reply.type[:64]!r} is no reply to {asked or 'anything'}")
    read(expected[reply.type], reply.fields)


def check_unasked(message: Control) -> None:
    """Whether signaling may be told this unasked. Raises WireError."""
    if message.type not in _UNASKED:
        raise WireError(f"unknown control message {message.type[:64]!r}")
    read(_UNASKED[message.type], message.fields)


def handled_by(handler: Callable[..., None]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """From fields to the keyword arguments of ``handler``, all but its first, as its annotations describe them. What it
    returns raises WireError for a field that is missing, unknown or of another type."""
    hints = typing.get_type_hints(handler, include_extras=True)
    _, *parameters = inspect.signature(handler).parameters.values()
    kind = msgspec.defstruct(
        handler.__name__,
        [(p.name, hints[p.name]) if p.default is p.empty else (p.name, hints[p.name], p.default) for p in parameters],
        forbid_unknown_fields=True,
        kw_only=True,
    )
    names = [p.name for p in parameters]

    def arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
        told = read(kind, fields)
        return {name: getattr(told, name) for name in names}

    return arguments
