"""aiortc's SCTP association, hardened against hostile peers: the cost of what a peer sends is bounded.

Packets are read by ``rtc.sctp.chunks`` and messages put together by ``rtc.sctp.reassembly``, in linear time and
within bounds. A chunk that does not belong to the association's state is passed over (RFC 9260 section 8.5). What
breaks the rules, or a bound, aborts the association, and only that: the call's media goes on.

Our messages are sent reliably, whatever a channel's other side asks for: an event that is given up would be an event
dropped in silence, and aiortc looks through all that is in flight for each chunk that it gives up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from struct import pack, unpack_from
from typing import Any, cast

from aiortc import RTCDataChannel, RTCDtlsTransport, RTCSctpTransport
from aiortc.rtcdatachannel import RTCDataChannelParameters
from aiortc.rtcsctptransport import (
    DATA_CHANNEL_ACK,
    DATA_CHANNEL_OPEN,
    WEBRTC_BINARY,
    WEBRTC_BINARY_EMPTY,
    WEBRTC_DCEP,
    WEBRTC_STRING,
    WEBRTC_STRING_EMPTY,
    AbortChunk,
    Chunk,
    CookieAckChunk,
    CookieEchoChunk,
    DataChunk,
    ErrorChunk,
    ForwardTsnChunk,
    HeartbeatChunk,
    InitAckChunk,
    InitChunk,
    ReconfigChunk,
    SackChunk,
    ShutdownAckChunk,
    ShutdownChunk,
    ShutdownCompleteChunk,
    StreamResetOutgoingParam,
)
from OpenSSL import SSL

from rtc.sctp.chunks import Malformed, parse
from rtc.sctp.reassembly import Reassembly, Violation
from rtc.sctp.state import PLAIN, SETS, AssociationState, ChannelState, ChunkState, control_chunk
from rtc.share import Share

__all__ = ["EARLY_BYTES", "MOST_CHANNELS", "Sctp"]

MOST_CHANNELS = 16  # all are closed at once when the association ends: a millisecond's work
_MOST_CHANNELS_REFUSED = 64
_MOST_TAKEN_UP = 4 * MOST_CHANNELS  # those that are being closed, and of which something waits, included
EARLY_BYTES = 1 << 20  # behind what is missing: of the window, which has room for one message besides
_MOST_IN_FLIGHT = 256 << 10
_LEAST_COUNTED = 512  # bytes of a chunk in flight: so that there are 512 at most, which every SACK has to look through
_DECODED_BYTES = 64 << 10  # a larger message is handed on as it came: to decode it is the work of who parses it
_MOST_QUEUED = 32768  # of our messages and ACKs; who sends events stops before (transceiver.channels)
_STRINGS, _BINARIES = (WEBRTC_STRING, WEBRTC_STRING_EMPTY), (WEBRTC_BINARY, WEBRTC_BINARY_EMPTY)

_State = RTCSctpTransport.State
_SETTING_UP = (_State.COOKIE_WAIT, _State.COOKIE_ECHOED)
_UP = (_State.COOKIE_ECHOED, _State.ESTABLISHED)
_ALIVE = tuple(state for state in _State if state != _State.CLOSED)
_TAKEN_IN: dict[type[Chunk], tuple[_State, ...]] = {
    InitChunk: _SETTING_UP,
    InitAckChunk: (_State.COOKIE_WAIT,),
    CookieEchoChunk: (*_SETTING_UP, _State.ESTABLISHED),
    CookieAckChunk: (_State.COOKIE_ECHOED,),
    ErrorChunk: _SETTING_UP,
    DataChunk: _UP,
    ForwardTsnChunk: _UP,
    SackChunk: (_State.ESTABLISHED,),
    HeartbeatChunk: _UP,
    ReconfigChunk: (_State.ESTABLISHED,),
    AbortChunk: _ALIVE,
    ShutdownChunk: (_State.ESTABLISHED, _State.SHUTDOWN_ACK_SENT),
    ShutdownCompleteChunk: (_State.SHUTDOWN_ACK_SENT,),
}


class Sctp(RTCSctpTransport):
    """The association over ``transport``. Messages of more than ``most_bytes`` are refused. ``aborted(reason, why)`` is
    called where we end it for what the peer did, with ``error`` where the fault may be ours.

    ``negotiated`` is the stream of the channel that both sides know of without an OPEN (RFC 8831 section 6.4): it is
    emitted as any other when the association is up, and again when the peer closed it and speaks on it anew.
    """

    def __init__(
        self,
        transport: RTCDtlsTransport,
        share: Share,
        *,
        most_bytes: int,
        aborted: Callable[[str, str, Exception | None], None],
        negotiated: int | None = None,
    ) -> None:
        super().__init__(transport, 5000)
        self._share = share
        self._most_bytes = most_bytes
        self._advertised_rwnd = most_bytes + EARLY_BYTES
        self._inbound: Reassembly | None = None
        self._aborted = aborted
        self._negotiated = negotiated
        self._refused_channels = 0

    @property
    def open_channels(self) -> int:
        """The number of channels, including those that close."""
        return len(self._data_channels)

    async def drained(self) -> None:
        """Returns when all that was to be sent has been acknowledged, or never will be."""
        while self.transport.state == "connected" and (  # noqa: ASYNC110 - aiortc has no event for it
            self._data_channel_queue or self._outbound_queue or self._sent_queue
        ):
            await asyncio.sleep(0.01)

    # --- in

    async def _handle_data(self, data: bytes) -> None:
        if self._association_state == _State.CLOSED:
            return
        try:
            tag, chunks = parse(data)
        except Malformed:
            return
        if tag != (0 if isinstance(chunks[0] if chunks else None, InitChunk) else self._local_verification_tag):
            return
        try:
            for chunk in chunks:
                if self._association_state in _TAKEN_IN.get(type(chunk), ()):
                    await self._receive_chunk(chunk)
                    await self._share.rest()
            if self._sack_needed and self._inbound is not None:
                await self._send_sack()
        except Violation as e:
            await self._give_up(e.reason, str(e))
        except Exception as e:
            await self._give_up("fault", repr(e), e)

    async def _give_up(self, reason: str, why: str, error: Exception | None = None) -> None:
        self._aborted(reason, why, error)
        await self._abort()
        self._set_state(_State.CLOSED)

    async def _receive_chunk(self, chunk: Chunk) -> None:
        await super()._receive_chunk(chunk)
        if isinstance(chunk, InitChunk | InitAckChunk):
            begins = self._inbound is None or self._inbound.initial_tsn != chunk.initial_tsn
            if begins and self._last_received_tsn is not None:
                self._inbound = Reassembly(
                    self._last_received_tsn, most_bytes=self._most_bytes, early_bytes=EARLY_BYTES
                )

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        if self._inbound is not None:
            self._sack_needed = True
            await self._received(self._inbound, self._inbound.add(chunk))

    async def _receive_forward_tsn_chunk(self, chunk: ForwardTsnChunk) -> None:
        if self._inbound is not None:
            self._sack_needed = True
            await self._received(self._inbound, self._inbound.forward(chunk.cumulative_tsn, chunk.streams))

    async def _received(self, inbound: Reassembly, messages: list[Any]) -> None:
        self._last_received_tsn = inbound.last_tsn
        self._advertised_rwnd = inbound.window_bytes
        for message in messages:
            await self._receive(*message)
            await self._share.rest()
        await self._reset_deferred_streams()

    async def _reset_deferred_streams(self) -> None:
        request = self._reconfig_deferred
        await super()._reset_deferred_streams()
        if request is not None and self._reconfig_deferred is None and self._inbound is not None:
            for stream in request.streams:
                self._inbound.reset(stream)

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        ahead = (chunk.cumulative_tsn - self._last_sacked_tsn) % (1 << 32)
        sent = (self._sent_queue[-1].tsn - self._last_sacked_tsn) % (1 << 32) if self._sent_queue else 0
        if ahead >= 1 << 31:
            return  # an old one
        if ahead > sent:
            raise Violation("malformed", "a SACK of what was never sent")
        # aiortc counts through what the blocks say. Only what is in flight can be acknowledged, and each once.
        blocks, last = [], 0
        for start, end in chunk.gaps:
            if not last < start <= end or start > sent - ahead:
                break
            last = min(end, sent - ahead)
            blocks.append((start, last))
        chunk.gaps = blocks
        await super()._receive_sack_chunk(chunk)
        self._cwnd = min(self._cwnd, _MOST_IN_FLIGHT)

    # --- out

    async def _send_chunk(self, chunk: Chunk) -> None:
        # As if the network had lost it: that DTLS is closed others are told.
        with contextlib.suppress(ConnectionError, SSL.Error):
            await super()._send_chunk(chunk)

    async def _send_sack(self) -> None:
        if self._inbound is None:
            return
        sack = SackChunk()
        sack.cumulative_tsn = self._inbound.last_tsn
        sack.advertised_rwnd = self._inbound.window_bytes
        sack.gaps = self._inbound.gaps()
        sack.duplicates = self._inbound.duplicates()
        self._sack_needed = False
        await self._send_chunk(sack)

    def _flight_size_increase(self, chunk: DataChunk) -> None:
        if not chunk._in_flight:
            chunk._in_flight = True
            self._flight_size += max(chunk._book_size, _LEAST_COUNTED)

    def _flight_size_decrease(self, chunk: DataChunk) -> None:
        if chunk._in_flight:
            chunk._in_flight = False
            self._flight_size -= max(chunk._book_size, _LEAST_COUNTED)

    # --- channels

    def _set_state(self, state: _State) -> None:
        before = self._association_state
        super()._set_state(state)
        if state == _State.CLOSED:
            self._inbound = None
            for queue in (self._data_channel_queue, self._outbound_queue, self._sent_queue):
                queue.clear()
        if state == _State.ESTABLISHED != before and self._negotiated is not None:
            self._make_negotiated(self._negotiated)

    def _make_negotiated(self, stream: int) -> RTCDataChannel:
        channel = RTCDataChannel(self, RTCDataChannelParameters(label="", negotiated=True, id=stream))
        self.emit("datachannel", channel)
        return channel

    async def _data_channel_receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        channel = self._data_channels.get(stream_id)
        if pp_id == WEBRTC_DCEP:
            if data[0] == DATA_CHANNEL_OPEN:
                await self._opened(stream_id, data)
            elif data[0] == DATA_CHANNEL_ACK and channel is not None and channel.readyState == "connecting":
                channel._setReadyState("open")
            return
        if channel is None and stream_id == self._negotiated:
            channel = self._make_negotiated(stream_id)
        if channel is None or channel.readyState != "open" or pp_id not in (*_STRINGS, *_BINARIES):
            return
        content = b"" if pp_id in (WEBRTC_STRING_EMPTY, WEBRTC_BINARY_EMPTY) else data
        channel.emit("message", _text(content) if pp_id in _STRINGS else content)

    async def _opened(self, stream: int, data: bytes) -> None:
        """Takes a DATA_CHANNEL_OPEN (RFC 8832 section 5.1)."""
        if len(data) < 12 or stream == 0xFFFF:
            raise Violation("malformed", "an OPEN that is cut off, or of no stream")
        channel = self._data_channels.get(stream)
        if channel is None and self.open_channels >= MOST_CHANNELS:
            self._refused_channels += 1
            if self._refused_channels > _MOST_CHANNELS_REFUSED:
                raise Violation("too_many", f"more than {MOST_CHANNELS} channels")
            return
        if channel is not None and channel.readyState != "open":
            return
        if len(self._data_channel_queue) > _MOST_QUEUED:
            raise Violation("too_many", "OPENs without an end")
        _, kind, _, _, label, protocol = unpack_from("!BBHLHH", data)
        new = channel is None
        if channel is None:
            parameters = RTCDataChannelParameters(
                label=data[12 : 12 + label].decode(errors="replace"),
                protocol=data[12 + label : 12 + label + protocol].decode(errors="replace"),
                ordered=kind & 0x80 == 0,
                id=stream,
            )
            channel = RTCDataChannel(self, parameters, False)
            channel._setReadyState("open")
            self._data_channels[stream] = channel
        self._data_channel_queue.append((channel, WEBRTC_DCEP, pack("!B", DATA_CHANNEL_ACK)))
        await self._data_channel_flush()
        if new:
            self.emit("datachannel", channel)

    # --- as a value

    def export(self) -> AssociationState | None:
        """The whole state, between two packets; None where there is no association any more. The association is silent
        from then on, and its channels with it."""
        exported = self.snapshot()
        if exported is not None:
            self.forsake()
        return exported

    def snapshot(self) -> AssociationState | None:
        """The whole state as ``export`` gives it, of an association that goes on."""
        state = self._association_state
        if state == _State.CLOSED:
            return None
        channels = list(dict.fromkeys([*self._data_channels.values(), *(item[0] for item in self._data_channel_queue)]))
        return AssociationState(
            state=state.name,
            plain={name: getattr(self, name) for name in PLAIN},
            sets={name: sorted(getattr(self, name)) for name in SETS},
            threshold=getattr(self, "_ssthresh", None),
            sent=[ChunkState.of(chunk) for chunk in self._sent_queue],
            unsent=[ChunkState.of(chunk) for chunk in self._outbound_queue],
            channels=[_exported(channel) for channel in channels],
            queue=[(channels.index(channel), protocol, data) for channel, protocol, data in self._data_channel_queue],
            t1=bytes(self._t1_chunk or b""),
            t2=bytes(self._t2_chunk or b""),
            reset=bytes(self._reconfig_request or b""),
            deferred=bytes(self._reconfig_deferred or b""),
            refused_channels=self._refused_channels,
            inbound=None if self._inbound is None else self._inbound.export(),
        )

    def forsake(self) -> None:
        """Ends it without a word, and its channels with it; nobody is told."""
        for cancel in (self._t1_cancel, self._t2_cancel, self._t3_cancel, self._reconfig_timer_cancel):
            cancel()
        self._association_state = _State.CLOSED
        self.transport._unregister_data_receiver(self)

    def take_up(self, state: AssociationState) -> list[RTCDataChannel]:
        """Goes on where ``export`` left off, instead of ``start``. Returns the channels that are not closed. Raises
        whatever a state raises that ``export`` did not give."""
        if len(state.channels) > _MOST_TAKEN_UP:
            raise ValueError(f"{len(state.channels)} channels")
        for name in PLAIN:
            setattr(self, name, state.plain[name])
        for name in SETS:
            setattr(self, name, set(state.sets[name]))
        if state.threshold is not None:
            self._ssthresh = state.threshold
        self._refused_channels = state.refused_channels
        if state.inbound is not None:
            self._inbound = Reassembly.take_up(state.inbound, most_bytes=self._most_bytes, early_bytes=EARLY_BYTES)
        channels = [self._taken_up(channel) for channel in state.channels]
        self._data_channel_queue.extend((channels[at], protocol, data) for at, protocol, data in state.queue)
        for sent in state.sent:
            self._sent_queue.append(chunk := sent.chunk())
            if sent.in_flight:
                self._flight_size_increase(chunk)
        self._outbound_queue.extend(unsent.chunk() for unsent in state.unsent)
        if state.deferred:
            self._reconfig_deferred = StreamResetOutgoingParam.parse(state.deferred)
        self.transport._register_data_receiver(self)
        if state.t1:
            self._t1_start(control_chunk(state.t1))
        if state.t2:
            self._t2_start(cast("ShutdownAckChunk", control_chunk(state.t2)))
        if state.sent:
            self._t3_start()
        if state.reset:
            self._reconfig_request = StreamResetOutgoingParam.parse(state.reset)
            self._reconfig_timer_start()
        self._association_state = getattr(_State, state.state)
        self._set_state(self._association_state)
        return channels

    def _taken_up(self, state: ChannelState) -> RTCDataChannel:
        parameters = RTCDataChannelParameters(
            label=state.label,
            maxPacketLifeTime=state.max_packet_life_ms,
            maxRetransmits=state.max_retransmits,
            ordered=state.ordered,
            protocol=state.protocol,
            negotiated=state.negotiated,
            id=state.stream,
        )
        channel = RTCDataChannel(self, parameters, send_open=False)
        if state.stream is not None:
            self._data_channels[state.stream] = channel
        channel._setReadyState(state.state)
        channel._addBufferedAmount(state.buffered_bytes)
        return channel


def _exported(channel: RTCDataChannel) -> ChannelState:
    return ChannelState(
        stream=channel.id,
        label=channel.label,
        protocol=channel.protocol,
        ordered=channel.ordered,
        max_packet_life_ms=channel.maxPacketLifeTime,
        max_retransmits=channel.maxRetransmits,
        negotiated=channel.negotiated,
        state=channel.readyState,
        buffered_bytes=channel.bufferedAmount,
    )


def _text(data: bytes) -> str | bytes:
    """The bytes as text, where they are some, and few."""
    if len(data) > _DECODED_BYTES:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
