"""A call's transport as a value, for whoever takes the call up. It holds the call's keys. Pure."""

from __future__ import annotations

import msgspec

from rtc.dtls.secure import SecureState
from rtc.ice.state import IceState
from rtc.sdp.offer import Offer

__all__ = ["AnsweredState", "TransportState"]


class AnsweredState(msgspec.Struct, frozen=True):
    """A transport to which nothing has come, as an answer names it. ``certificate`` and ``key`` are DER, ``ice`` has
    the passwords; the others are as of ``TransportState``."""

    ufrag: str
    offer: Offer
    dcid: int | None
    ice: IceState
    certificate: bytes
    key: bytes


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
