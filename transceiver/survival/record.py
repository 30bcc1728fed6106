"""The record of one call in the vault: its state, and what whoever takes it up after a crash has to know besides. Pure.

The process that died has sent packets since it wrote the record, by a bound that it keeps (``NUMBERS``). Whoever goes
on jumps over all numbers that these can have had: a number that is used twice with one key would give away what both
packets say (RFC 3711 section 9.1, RFC 5288 section 3).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from rtc.dtls.srtp import SrtpState
from transceiver.state import MOST_BYTES, SessionState, StateError, decoded, encoded
from transceiver.survival.shelf import Place
from transceiver.talk.telling import TellingState

__all__ = ["NUMBERS", "Record", "jumped", "read", "written"]

NUMBERS = 40  # of packets of all kinds that are sent between two records of a call, and one more
_JUMP = NUMBERS + 8


class Record(msgspec.Struct, frozen=True, array_like=True):
    """``at`` is the time of the state on this machine's monotonic clock, in seconds. ``paths`` has clients' addresses,
    and the worker by which each comes. ``tries`` is how often the call was taken up since it was last well. ``told`` is
    what processes of edges that watch may not have got, and ``places`` is where the state's parts are."""

    at: float
    state: Annotated[bytes, Meta(max_length=MOST_BYTES)]
    paths: Annotated[tuple[tuple[bytes, bytes], ...], Meta(max_length=64)] = ()
    tries: int = 0
    told: tuple[TellingState, ...] = ()
    places: tuple[Place, ...] = ()


def written(
    state: SessionState,
    at: float,
    paths: tuple[tuple[bytes, bytes], ...],
    tries: int = 0,
    told: tuple[TellingState, ...] = (),
    places: tuple[Place, ...] = (),
) -> bytes:
    """The bytes of a record, without the state's parts. Raises StateError where the state is too large."""
    return msgspec.msgpack.encode(Record(at, encoded(replace(state, parts=[])), paths, tries, told, places))


def read(data: bytes) -> tuple[Record, SessionState]:
    """The record that ``written`` gave, and the state in it, without its parts. Raises StateError where it is none, or
    of another version."""
    try:
        record = msgspec.msgpack.decode(data, type=Record)
    except msgspec.MsgspecError as e:
        raise StateError(f"no record of a call: {e}") from None
    return record, decoded(record.state)


def jumped(state: SessionState) -> SessionState:
    """The state as it can be at most, so that no number that may have been used is used again."""
    media, transport = state.media, state.transport
    voice, secure = media.voice, transport.secure
    records = secure.dtls.records
    records = replace(records, sequence=records.sequence + _JUMP, nonce=(records.nonce + _JUMP) & 0xFFFF_FFFF_FFFF_FFFF)
    dtls = replace(secure.dtls, records=records, srtp=_srtp(secure.dtls.srtp, voice.ssrc.to_bytes(4, "big")))
    return replace(
        state,
        media=replace(media, voice=replace(voice, sequence=(voice.sequence + _JUMP) & 0xFFFF)),
        transport=replace(transport, secure=replace(secure, dtls=dtls)),
    )


def _srtp(srtp: SrtpState, ssrc: bytes) -> SrtpState:
    """Extended sequence numbers count on with the voice's, so their roll-over counter goes along."""
    indices = {ssrc: 1} | srtp.rtcp_indices  # nothing of ours may have been sent before the record
    return replace(
        srtp,
        sent={each: index + _JUMP for each, index in srtp.sent.items()},
        rtcp_indices={each: index + _JUMP for each, index in indices.items()},
    )
