"""The UDP side of a call: one socket for ICE, DTLS, SRTP and the data channel (BUNDLE, RFC 9143)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from typing import Any

from aiortc import RTCDataChannel
from aiortc.rtcdatachannel import RTCDataChannelParameters

from caller.conversation import Conversation
from caller.keypad import Keypad
from caller.offer import Answer, Offer
from caller.voice import FRAME_SAMPLES, Voice
from rtc.dtls.secure import Certificate, SecureTransport
from rtc.ice.checklist import Checklist
from rtc.ice.controlling import CONSENT_LOST_S, Credentials
from rtc.rtp.packet import build, is_rtcp, parse
from rtc.rtp.reception import Reception
from wire import address as flow

__all__ = ["CHANNEL", "Media"]

CHANNEL = "oai-events"
_KEPT_EVENTS = 1000
_PATIENCE_S = 1.0
_KEPT_WORDS, _LONGEST_WORDS = 64, 2000
_WHOSE_WORDS = {
    "conversation.item.input_audio_transcription.completed": "caller",
    "response.output_audio_transcript.done": "agent",
}


class Media:
    """The media of one call, opened after the answer; ``connected``, ``heard`` and ``ended`` are set when ICE is up,
    audio comes, and the peer ends it.

    ``ended_why`` says in words why the peer is gone; ``events`` are the last thousand that came. ``keys`` are pressed
    when the data channel is open, where there is one; ``keys_told`` are those that the server told of. ``words`` are
    the last sentences that it wrote down, each with who said it, "caller" or "agent".
    """

    def __init__(self, offer: Offer, answer: Answer, certificate: Certificate, voice: Voice, keys: str = "") -> None:
        self._loop = asyncio.get_running_loop()
        self._offer = offer
        self._answer = answer
        self._voice = voice
        self._remotes = {flow.pack(*address): address for address in answer.addresses}
        self._socket: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._channel: RTCDataChannel | None = None
        self._keypad = Keypad(keys)
        self._next_frame = 0
        self._sequence = offer.ssrc & 0x7FFF  # random, in the lower half (RFC 3711 section 3.3.1)
        self._timestamp = offer.ssrc
        self._secure = SecureTransport(self._send, certificate, client=not answer.server_is_dtls_client)
        credentials = Credentials(offer.ufrag, offer.password, answer.ufrag, answer.password)
        self.ice = Checklist(credentials, tuple(self._remotes))
        self.reception = Reception()
        self.conversation = Conversation(voice)
        self.connected = asyncio.Event()
        self.heard = asyncio.Event()
        self.ended = asyncio.Event()
        self.ended_why = ""
        self.refused = False
        self.rejected = 0
        self.dtls_datagrams = 0
        self.events: deque[dict[str, Any]] = deque(maxlen=_KEPT_EVENTS)
        self.keys_told = ""
        self.words: deque[tuple[str, str]] = deque(maxlen=_KEPT_WORDS)
        self.told: dict[str, Any] | None = None
        self._answered = asyncio.Event()
        self.channel_open_at: float | None = None
        self.session_created_at: float | None = None

    @property
    def ssrc(self) -> int:
        """The SSRC of the voice that we send."""
        return self._offer.ssrc

    @property
    def server(self) -> tuple[str, int]:
        """The address to which media goes."""
        return self._remotes[self.ice.selected]

    async def open(self, bind: str | None) -> None:
        """Binds a port and begins to check. Raises OSError where there is no such local address."""
        self._socket = await self._port(bind)
        self._check()

    async def rebind(self) -> None:
        """Goes on from another local port, as a caller does whose NAT forgot it; nothing else changes, and no check is
        sent for it."""
        old = self._socket
        assert old is not None
        host = old.get_extra_info("sockname")[0]
        self._socket = await self._port(host)
        old.close()

    async def _port(self, host: str | None) -> asyncio.DatagramTransport:
        """A socket of any local port. It is connected where there is one candidate, so that an ICMP error is heard."""
        remote = self._answer.address if len(self._remotes) == 1 else None
        if host is None and remote is None:
            host = "::" if ":" in self._answer.address[0] else "0.0.0.0"
        transport, _ = await self._loop.create_datagram_endpoint(
            lambda: _Port(self), local_addr=(host, 0) if host else None, remote_addr=remote
        )
        return transport

    async def secure(self) -> None:
        """Completes when SRTP is keyed and the data channel is under way. Raises DtlsError."""
        await self._secure.handshake(self._answer.fingerprints)
        self._secure.on_close(lambda: self._end("the server ended the call"))
        if self._answer.sctp_port is not None:
            await self._secure.open_sctp(self._answer.sctp_port, self._answer.max_message_bytes, lambda channel: None)
            assert self._secure.sctp is not None
            self._channel = RTCDataChannel(self._secure.sctp, RTCDataChannelParameters(label=CHANNEL))
            self._channel.on("open", self._channel_opened)
            self._channel.on("message", self._event)

    def send_frame(self) -> None:
        """Sends the next 20 ms of the voice, or of a key in its place."""
        ready = self._channel is None or self.channel_open_at is not None
        event = self._keypad.next(self._timestamp) if ready else None
        if event is not None:
            assert self._answer.keys_payload_type is not None
            self._send_rtp(self._answer.keys_payload_type, event.marker, event.timestamp, event.payload)
        else:
            index = self._next_frame
            self._next_frame = (index + 1) % len(self._voice.frames)
            marker, payload = self.conversation.sent == 0, self._voice.frames[index]
            self._send_rtp(self._answer.payload_type, marker, self._timestamp, payload)
            self.conversation.sent_frame(index, self._loop.time())
        self._timestamp += FRAME_SAMPLES

    def _send_rtp(self, payload_type: int, marker: bool, timestamp: int, payload: bytes) -> None:
        packet = build(payload_type, marker, self._sequence, timestamp, self._offer.ssrc, payload)
        self._sequence += 1
        self._send(self._secure.protect(packet))

    def send_event(self, event: dict[str, Any]) -> None:
        """Sends a client event on the data channel, which must be open."""
        assert self._channel is not None, "the server takes no data channel"
        self._channel.send(json.dumps(event))

    async def ask(self) -> None:
        """Asks the server, if it is still there, how it saw the call's media. The answer is in ``told``, if the server
        gives one within a second."""
        if self._channel is None or self._channel.readyState != "open" or self.ended_why:
            return
        self._answered.clear()
        self.send_event({"type": "firsthop.media.retrieve"})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), _PATIENCE_S)

    async def close(self) -> None:
        """Says goodbye and ends; nothing is left behind."""
        if self._timer is not None:
            self._timer.cancel()
        self.ended.set()
        await self._secure.close()
        if self._socket is not None:
            self._socket.close()
        # aiortc cancels its reader and does not wait for it.
        await asyncio.sleep(0)

    def received(self, datagram: bytes, source: bytes) -> None:
        """Takes a datagram from the server's address ``source``, told apart by its first byte (RFC 7983)."""
        first = datagram[0] if datagram else 255
        if source not in self._remotes:
            self.rejected += 1
        elif 128 <= first <= 191:
            self._received_rtp(datagram, source)
        elif 20 <= first <= 63:
            self.dtls_datagrams += 1
            self._secure.feed(datagram)
        elif first <= 3:
            now = self._loop.time()
            reply = self.ice.receive(datagram, source, now)
            if reply is not None:
                self._send(reply, source)
            if self.ice.connected_at is not None and not self.connected.is_set():
                self.connected.set()
            if self._timer is not None and not self.ended.is_set():
                self._timer.cancel()
                self._check()  # what it says may have made another check due

    def _received_rtp(self, datagram: bytes, source: bytes) -> None:
        if len(datagram) < 12 or is_rtcp(datagram) or not self._secure.connected:
            return
        now = self._loop.time()
        plain = self._secure.unprotect(datagram)
        packet = parse(plain) if plain is not None else None
        if packet is None:
            self.rejected += 1
            return
        self.ice.came(source, now)
        if packet.payload_type == self._answer.payload_type:
            if self.reception.add(packet, now):
                self.conversation.received_payload(packet.payload, now)
            if not self.heard.is_set():
                self.heard.set()

    def _send(self, datagram: bytes, to: bytes | None = None) -> None:
        if self._socket is not None and not self._socket.is_closing():
            address = None if len(self._remotes) == 1 else self._remotes[to or self.ice.selected]
            self._socket.sendto(datagram, address)

    def _check(self) -> None:
        now = self._loop.time()
        if self.ice.consent_lost(now):
            self._end(f"no check was answered for {CONSENT_LOST_S:.0f} s")
            return
        checks, due = self.ice.poll(now)
        for to, check in checks:
            self._send(check, to)
        self._timer = self._loop.call_at(due, self._check)

    def _end(self, why: str) -> None:
        if not self.ended.is_set():
            self.ended_why = why
            self.ended.set()

    def _channel_opened(self) -> None:
        self.channel_open_at = self._loop.time()

    def _event(self, message: str | bytes) -> None:
        event: Any = None
        with contextlib.suppress(ValueError):
            event = json.loads(message)
        if not isinstance(event, dict):
            return
        self.events.append(event)
        if self.session_created_at is None and event.get("type") == "session.created":
            self.session_created_at = self._loop.time()
        if event.get("type") == "firsthop.media":
            self.told = {key: value for key, value in event.items() if key not in ("type", "event_id")}
        if event.get("type") in ("firsthop.media", "error"):
            self._answered.set()
        if event.get("type") == "input_audio_buffer.dtmf_event_received":
            self.keys_told += str(event.get("event"))[:1]
        whose = _WHOSE_WORDS.get(str(event.get("type")))
        if whose is not None:
            self.words.append((whose, str(event.get("transcript", ""))[:_LONGEST_WORDS].strip()))


class _Port(asyncio.DatagramProtocol):
    def __init__(self, media: Media) -> None:
        self._media = media

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._media.received(data, flow.pack(*addr[:2]))

    def error_received(self, exc: Exception) -> None:
        # An ICMP error: nobody listens there, at the moment. Not the end, a restarting server does this too.
        if isinstance(exc, ConnectionRefusedError):
            self._media.refused = True
