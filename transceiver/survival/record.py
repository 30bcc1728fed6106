"""The record of one call in the vault: its state, and what whoever takes it up after a crash has to know besides. Pure.

The process that died has sent packets since it wrote the record, and has counted each beside it before it sent it.
Whoever goes on jumps over the numbers that these had: a number that is used twice with one key would give away what
both packets say (RFC 3711 section 9.1, RFC 5288 section 3). Of DTLS nothing was sent: that waits for a record.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from rtc.dtls.srtp_state import SrtpState
from transceiver.state import MOST_BYTES, SessionState, StateError, decoded, encoded
from transceiver.survival.shelf import Place
from transceiver.talk.telling import TellingState

__all__ = ["Counts", "Record", "jumped", "read", "written"]

_MOST_USED = 1 << 14  # of either kind since a record: a receiver still knows which number of 16 bits is meant
_SPARE = 2  # of SRTP and SRTCP, which no loss of a packet is far from
_DTLS_JUMP = 48  # nothing was sent, and nothing depends on there being no gap

Counts = tuple[int, int]  # packets of RTP and of RTCP that a call has sent


class Record(msgspec.Struct, frozen=True, array_like=True):
    """``counts`` are those of the moment of the state, and ``at`` is that on this machine's monotonic clock, in
    seconds. ``paths`` has clients' addresses, and the worker by which each comes. ``tries`` is how often the call was
    taken up since it was last well. ``told`` is what processes of edges that watch may not have got, and ``places`` is
    where the state's parts are."""

    counts: Counts
    at: float
    state: Annotated[bytes, Meta(max_length=MOST_BYTES)]
    paths: Annotated[tuple[tuple[bytes, bytes], ...], Meta(max_length=64)] = ()
    tries: int = 0
    told: tuple[TellingState, ...] = ()
    places: tuple[Place, ...] = ()


def written(
    state: SessionState,
    counts: Counts,
    at: float,
    paths: tuple[tuple[bytes, bytes], ...],
    tries: int = 0,
    told: tuple[TellingState, ...] = (),
    places: tuple[Place, ...] = (),
) -> bytes:
    """The bytes of a record, without the state's parts. Raises StateError where the state is too large."""
    return msgspec.msgpack.encode(Record(counts, at, encoded(replace(state, parts=[])), paths, tries, told, places))


def read(data: bytes) -> tuple[Record, SessionState]:
    """The record that ``written`` gave, and the state in it, without its parts. Raises StateError where it is none, or
    of another version."""
    try:
        record = msgspec.msgpack.decode(data, type=Record)
    except msgspec.MsgspecError as e:
        raise StateError(f"no record of a call: {e}") from None
    return record, decoded(record.state)


def jumped(state: SessionState, record: Counts, now: Counts) -> SessionState:
    """The state without the numbers that were used since: ``record`` are the counts that it was written with, ``now``
    those that were found beside it. Raises StateError where these cannot be."""
    rtp, rtcp = (after - before + _SPARE for before, after in zip(record, now, strict=True))
    if not (_SPARE <= rtp <= _MOST_USED and _SPARE <= rtcp <= _MOST_USED):
        raise StateError(f"no counts of a call: {record} and then {now}")
    media, transport = state.media, state.transport
    voice, secure = media.voice, transport.secure
    records = secure.dtls.records
    nonce = (records.nonce + _DTLS_JUMP) & 0xFFFF_FFFF_FFFF_FFFF
    records = replace(records, sequence=records.sequence + _DTLS_JUMP, nonce=nonce)
    dtls = replace(secure.dtls, records=records, srtp=_srtp(secure.dtls.srtp, voice.ssrc.to_bytes(4, "big"), rtp, rtcp))
    return replace(
        state,
        media=replace(media, voice=replace(voice, sequence=(voice.sequence + rtp) & 0xFFFF)),
        transport=replace(transport, secure=replace(secure, dtls=dtls)),
    )


def _srtp(srtp: SrtpState, ssrc: bytes, rtp: int, rtcp: int) -> SrtpState:
    """Extended sequence numbers count on with the voice's, so their roll-over counter goes along."""
    indices = {ssrc: 1} | srtp.rtcp_indices  # nothing of ours may have been sent before the record
    return replace(
        srtp,
        sent={each: index + rtp for each, index in srtp.sent.items()},
        rtcp_indices={each: index + rtcp for each, index in indices.items()},
    )
