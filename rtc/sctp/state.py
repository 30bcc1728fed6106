"""An SCTP association and its data channels as a value. Pure.

A plain number, flag or list of aiortc's has the name here that it has there; chunks and channels have forms of their
own. Nothing here is a time, so what is in flight across the move measures no round trip (Karn's rule).
"""

from __future__ import annotations

from typing import Any

from aiortc.rtcsctptransport import Chunk, CookieEchoChunk, DataChunk, InitChunk, ShutdownAckChunk
from msgspec import Struct

from rtc.sctp.reassembly import ReassemblyState

__all__ = ["PLAIN", "SETS", "AssociationState", "ChannelState", "ChunkState", "control_chunk"]

# Of aiortc's attributes, as they are.
PLAIN = (
    *("_hmac_key", "_local_port", "_local_verification_tag", "_remote_extensions", "_remote_max_message_size"),
    *("_remote_partial_reliability", "_remote_port", "_remote_verification_tag", "_advertised_rwnd"),
    *("_inbound_streams_count", "_last_received_tsn", "_sack_needed", "_cwnd", "_fast_recovery_exit"),
    *("_fast_recovery_transmit", "_local_tsn", "_last_sacked_tsn", "_advanced_peer_ack_tsn", "_outbound_stream_seq"),
    *("_outbound_streams_count", "_partial_bytes_acked", "_reconfig_queue", "_reconfig_request_seq"),
    *("_reconfig_response_seq", "_srtt", "_rttvar", "_rto", "_data_channel_id"),
)
SETS = ("_data_channel_inbound_reset", "_data_channel_outbound_reset")
_SENT_AGAIN = 2  # times that a chunk was sent, of which an acknowledgement says nothing about the round trip


class ChunkState(Struct, frozen=True, array_like=True):
    """A DATA chunk of ours."""

    flags: int
    tsn: int
    stream: int
    sequence: int
    protocol: int
    data: bytes
    sent_count: int
    misses: int
    acked: bool
    retransmit: bool
    in_flight: bool

    @classmethod
    def of(cls, chunk: DataChunk) -> ChunkState:
        """The value of aiortc's chunk."""
        return cls(
            *(chunk.flags, chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol, chunk.user_data),
            *(chunk._sent_count, chunk._misses, chunk._acked, chunk._retransmit, chunk._in_flight),
        )

    def chunk(self) -> DataChunk:
        """aiortc's chunk, not counted as in flight yet."""
        made = DataChunk(self.flags)
        made.tsn, made.stream_id, made.stream_seq = self.tsn, self.stream, self.sequence
        made.protocol, made.user_data = self.protocol, self.data
        made._sent_count = max(self.sent_count, _SENT_AGAIN) if self.sent_count else 0
        made._misses, made._acked, made._retransmit = self.misses, self.acked, self.retransmit
        made._sent_time = 0.0 if self.sent_count else None
        made._book_size = len(self.data)
        made._abandoned = made._in_flight = False
        made._expiry = made._max_retransmits = None
        return made


class ChannelState(Struct, frozen=True):
    """A data channel; ``stream`` is None where the association is not up and it has none yet."""

    stream: int | None
    label: str
    protocol: str
    ordered: bool
    max_packet_life_ms: int | None
    max_retransmits: int | None
    negotiated: bool
    state: str
    buffered_bytes: int


class AssociationState(Struct, frozen=True):
    """An association. ``state`` is the name of aiortc's. ``queue`` has messages that are no chunks yet: index of their
    channel, payload protocol and data. ``t1`` and ``t2`` are chunks that are sent again until they are answered;
    ``reset`` is our request that awaits its answer, and ``deferred`` is the peer's that awaits its data (RFC 6525),
    each as it is on the wire."""

    state: str
    plain: dict[str, Any]
    sets: dict[str, list[int]]
    threshold: int | None
    sent: list[ChunkState]
    unsent: list[ChunkState]
    channels: list[ChannelState]
    queue: list[tuple[int, int, bytes]]
    t1: bytes
    t2: bytes
    reset: bytes
    deferred: bytes
    refused_channels: int
    inbound: ReassemblyState | None


def control_chunk(raw: bytes) -> Chunk:
    """The chunk of ``AssociationState.t1`` or ``t2``."""
    kinds: dict[int, type[Chunk]] = {kind.type: kind for kind in (InitChunk, CookieEchoChunk, ShutdownAckChunk)}
    return kinds[raw[0]](flags=raw[1], body=raw[4 : int.from_bytes(raw[2:4], "big")])
