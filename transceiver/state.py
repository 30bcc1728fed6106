"""A session as a value and as bytes, for whoever takes the call up. The bytes hold its keys. Pure.

Times are ages in seconds, because another host's clock counts from elsewhere.
"""

from __future__ import annotations

import msgspec

from rtc.state import TransportState
from transceiver.media.state import MediaState
from transceiver.talk.channels import ChannelsState
from transceiver.talk.talk import TalkState

__all__ = ["MOST_BYTES", "VERSION", "SessionState", "StateError", "decoded", "encoded"]

VERSION = 3  # changes with anything that a SessionState has, in whatever depth
_LONGEST_S = 1e9  # that anything is ago
MOST_BYTES = 64 << 20  # an answer of minutes that waits to be heard is 14 MB, and a conversation's pictures 16


class StateError(ValueError):
    """A state that cannot be had, or cannot be taken up; the text says why in one line."""


class SessionState(msgspec.Struct, frozen=True):
    """A connected session. ``owner`` and ``holder`` are as of ``Session``, ``age_s`` is how long ago the call was
    placed, and ``tick_s`` how long ago its last 20 ms were made. ``parts`` is what is large (``transceiver.parts``)."""

    transport: TransportState
    media: MediaState
    talk: TalkState
    channels: ChannelsState
    owner: str
    holder: str
    age_s: float
    tick_s: float
    parts: list[bytes] = []

    @property
    def ufrag(self) -> str:
        """The ufrag that names the call."""
        return self.transport.ufrag


class _Envelope(msgspec.Struct, array_like=True):
    version: int
    state: msgspec.Raw


def encoded(state: SessionState) -> bytes:
    """The state and its version, as msgpack. Raises StateError where it has more than MOST_BYTES."""
    encode = msgspec.msgpack.encode
    data = encode(_Envelope(VERSION, msgspec.Raw(encode(state))))
    if len(data) > MOST_BYTES:
        raise StateError(f"a session's state has {len(data)} bytes, and at most {MOST_BYTES} are moved")
    return data


def decoded(data: bytes) -> SessionState:
    """The state that ``encoded`` gave. Raises StateError where it is none, or of another version."""
    if len(data) > MOST_BYTES:
        raise StateError(f"a session's state has {len(data)} bytes, and at most {MOST_BYTES} are taken up")
    try:
        envelope = msgspec.msgpack.decode(data, type=_Envelope)
        if envelope.version == VERSION:
            return _sound(msgspec.msgpack.decode(envelope.state, type=SessionState))
    except (msgspec.MsgspecError, ValueError, RecursionError) as e:
        raise StateError(f"no session's state: {e}") from None
    raise StateError(f"a session's state of version {envelope.version} cannot be taken up: {VERSION} is known here")


def _sound(state: SessionState) -> SessionState:
    if not (abs(state.age_s) < _LONGEST_S and abs(state.tick_s) < _LONGEST_S):  # nor is one not a number
        raise ValueError("it is of no time")
    return state
