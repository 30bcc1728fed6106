"""A call's transport as bytes, for whoever takes the call up. The bytes hold its keys. Pure."""

from __future__ import annotations

import msgspec

from rtc.dtls.secure import SecureState
from rtc.ice.state import IceState
from rtc.sdp.offer import Offer

__all__ = ["VERSION", "TransportState", "decoded", "encoded"]

VERSION = 1  # changes with anything that a TransportState has, in whatever depth


class TransportState(msgspec.Struct, frozen=True):
    """A connected transport. ``ufrag`` is the one that names the call, ``dcid`` the stream of a data channel that the
    client has negotiated, ``ssrcs`` what the client is known to send with, ``authentic_ssrcs`` those of 4 bytes that
    have authenticated. ``spare_ms`` is how long its media may wait on its way."""

    ufrag: str
    offer: Offer
    dcid: int | None
    ssrcs: tuple[int, ...]
    spare_ms: float
    ice: IceState
    secure: SecureState
    authentic_ssrcs: tuple[bytes, ...]


class _Envelope(msgspec.Struct, array_like=True):
    version: int
    state: msgspec.Raw


def encoded(state: TransportState) -> bytes:
    """The state and its version, as msgpack."""
    encode = msgspec.msgpack.encode
    return encode(_Envelope(VERSION, msgspec.Raw(encode(state))))


def decoded(data: bytes) -> TransportState:
    """The state that ``encoded`` gave. Raises ValueError with one line where it is of another version."""
    envelope = msgspec.msgpack.decode(data, type=_Envelope)
    if envelope.version != VERSION:
        raise ValueError(
            f"a transport's state of version {envelope.version} cannot be taken up: {VERSION} is known here"
        )
    return msgspec.msgpack.decode(envelope.state, type=TransportState)
