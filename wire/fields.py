"""The parts of control messages: their base, and the types of fields with the bounds of these."""

from __future__ import annotations

import typing
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from wire.address import SIZE as ADDRESS_BYTES
from wire.ufrag import MAX_TRANSCEIVER

__all__ = [
    "MAX_MORE_MEDIA",
    "MAX_PARTS",
    "Address",
    "Agent",
    "CallUfrag",
    "Holder",
    "Locked",
    "LongText",
    "Media",
    "MediaAddress",
    "Message",
    "MoreMedia",
    "Name",
    "Neighbour",
    "Number",
    "Owner",
    "PartNumber",
    "Request",
    "Session",
    "Ssrc",
    "Text",
    "TraceParent",
    "TraceState",
    "Transceiver",
    "Ufrag",
    "Version",
    "about",
    "reply_type",
]

Ufrag = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"\A[A-Za-z0-9+/]+\Z")]  # RFC 8839 section 5.4
Text = Annotated[str, Meta(max_length=256)]
LongText = Annotated[str, Meta(max_length=1 << 16)]
Media = tuple[Text, Annotated[int, Meta(ge=1, le=65535)]]
Name = Annotated[bytes, Meta(min_length=1, max_length=255)]
Address = Annotated[bytes, Meta(min_length=ADDRESS_BYTES, max_length=ADDRESS_BYTES)]
Ssrc = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
Version = Annotated[int, Meta(ge=0, le=127)]
Transceiver = Annotated[int, Meta(ge=0, le=MAX_TRANSCEIVER)]
Number = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]


MAX_MORE_MEDIA = 7  # candidates of one answer, beside the first
MAX_PARTS = 4096  # of the state of a call that is handed over


def about(meaning: str) -> Meta:
    """A field's meaning, for the reference."""
    return Meta(description=meaning)


PartNumber = Annotated[int, Meta(ge=0, le=MAX_PARTS - 1)]
CallUfrag = Annotated[Ufrag, about("The session, by the first ufrag that it was given.")]
Agent = Annotated[Text, about("The name of the agent; empty for that of the transceiver's configuration.")]
# Whatever a client says: the transceiver judges it as it does a client's own event, and refuses it in the same words.
Session = Annotated[Any, about("The session's settings, as in the Realtime API's `session.update`; nil for defaults.")]
Owner = Annotated[
    Text,
    about("The account that the session is on. A session of another account is not found; empty asks as the edge."),
]
Holder = Annotated[
    Text, about("The ephemeral key that the session is placed with; calls of one that have not connected are limited.")
]
Locked = Annotated[
    list[Text] | None,
    about(
        "Fields of `session` that the client may neither change nor see, as the maker of its key demands: they keep "
        "what `session` says, or their defaults."
    ),
]
TraceParent = Annotated[
    str,
    Meta(max_length=55, pattern=r"\A(?:00-[0-9a-f]{32}-[0-9a-f]{16}-01)?\Z"),
    about("The span that the session's belongs under, as `traceparent` of W3C Trace Context; empty: it is not traced."),
]
TraceState = Annotated[
    str,
    Meta(max_length=512, pattern=r"\A[\x20-\x7e]*\Z"),
    about("The trace's state for whoever comes next, as `tracestate` there."),
]
MediaAddress = Annotated[Media, about("The host and port that clients send media to.")]
MoreMedia = Annotated[
    list[Media],
    Meta(max_length=MAX_MORE_MEDIA),
    about("Those of other edges, the preferred first: clients may send there as well."),
]


class Neighbour(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Another transceiver, as an edge knows it."""

    id: Annotated[Transceiver, about("The id that its ufrags carry.")]
    endpoint: Annotated[Text, about("Where it listens.")]
    room: Annotated[
        Annotated[int, Meta(ge=0, le=1 << 32)] | None, about("Calls that it can take; nil where that is unknown.")
    ] = None
    draining: Annotated[bool, about("Whether it takes none.")] = False


Reply = TypeVar("Reply", bound="Message")


class Message(msgspec.Struct, tag_field="type", kw_only=True, omit_defaults=True):
    """A control message."""


class Request(Message, Generic[Reply]):
    """A control message that gets a ``Reply``, or is refused."""


def reply_type(request: type[Request[Reply]]) -> type[Reply]:
    """The type of the reply to such a request, where it is not refused."""
    (declared,) = (base for base in request.__orig_bases__ if typing.get_origin(base) is Request)  # type: ignore[attr-defined]
    (reply,) = typing.get_args(declared)
    return typing.cast("type[Reply]", reply)
