"""The announcements of an edge to the other edges of its cluster: that it is there, and whose media its callers send.

An edge publishes, and whoever wants to hear subscribes (ZeroMQ PUB and SUB, ``wire.link``). A message is one part: a
byte for its subject, by which subscribers choose, and a msgpack map. Nothing is answered, and what is lost is said
again. A field that is added has a default, and fields that are not known here are ignored. Pure.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from wire.frames import WireError
from wire.ufrag import MAX_TRANSCEIVER

__all__ = ["FLOWS", "HEARTBEAT", "MAX_FLOWS", "MAX_MESSAGE_BYTES", "Flows", "Heartbeat", "encode", "read"]

HEARTBEAT, FLOWS = b"E", b"F"
MAX_FLOWS = 2048
MAX_MESSAGE_BYTES = 64 << 10

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Flow = tuple[Annotated[int, Meta(ge=0, le=0xFFFFFFFF)], Annotated[int, Meta(ge=0, le=MAX_TRANSCEIVER)]]


class Heartbeat(msgspec.Struct, frozen=True, omit_defaults=True):
    """The edge ``name`` is there, and takes calls unless it is ``draining``."""

    name: Name
    draining: bool = False


class Flows(msgspec.Struct, frozen=True, omit_defaults=True):
    """SSRCs that callers of the edge ``name`` send with, and the transceiver that each is for: hints, for an edge to
    which the network brings such a caller's packets from now on."""

    name: Name
    flows: Annotated[list[Flow], Meta(max_length=MAX_FLOWS)]


_SUBJECTS: dict[type[Heartbeat | Flows], bytes] = {Heartbeat: HEARTBEAT, Flows: FLOWS}
_encode = msgspec.msgpack.Encoder().encode
_decoders: dict[bytes, msgspec.msgpack.Decoder[Any]] = {
    subject: msgspec.msgpack.Decoder(kind) for kind, subject in _SUBJECTS.items()
}


def encode(announcement: Heartbeat | Flows) -> bytes:
    """The message that says so."""
    return _SUBJECTS[type(announcement)] + _encode(announcement)


def read(message: bytes) -> Heartbeat | Flows:
    """The announcement in a message. Raises WireError where it is none, or is too large."""
    decoder = _decoders.get(message[:1])
    if decoder is None or len(message) > MAX_MESSAGE_BYTES:
        raise WireError(f"{len(message)} bytes are no announcement")
    try:
        announcement: Heartbeat | Flows = decoder.decode(memoryview(message)[1:])
    except (ValueError, TypeError, RecursionError) as e:  # msgspec's own errors are ValueErrors
        raise WireError(f"no announcement: {e}") from None
    return announcement
