"""The WebRTC transport of one call: ICE, DTLS, SRTP and SCTP, from the first check to the goodbye.

Datagrams come in by ``check``, ``dtls`` and ``media``. RTP and RTCP leave it in the clear for the call's media, and
what the media sends goes out protected, on the selected path.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ClassVar, Protocol

from aiortc import RTCDataChannel

from rtc.dtls.secure import MAX_RTP_BYTES, Certificate, DtlsError, SecureState, SecureTransport
from rtc.ice.lite import CONSENT_S, IceLite, Path
from rtc.ice.state import IceState
from rtc.rtp import packet as rtp
from rtc.rtp.gate import Gate
from rtc.sdp.answer import Offer
from rtc.state import AnsweredState, TransportState
from runtime import logs
from runtime.tracing.spans import NOTHING, Span
from transceiver.backlog import Backlog
from transceiver.counters import RX_DATAGRAMS, TX_DATAGRAMS
from transceiver.setup import Setup
from wire import stun
from wire.ufrag import call_id

__all__ = ["Call", "Kept", "Media", "Outbound", "Transport"]

_HANDSHAKE_S = 15  # flights lost in a row are sent again after 0.1, 0.2, 0.4, 1, 2, 4 s


class Outbound(Protocol):
    """The way of a transport's datagrams to its client."""

    def send(self, transport: Transport, path: Path, datagram: bytes) -> None:
        """Queues a datagram for the client at ``path``."""

    def path_down(self, transport: Transport, path: Path) -> None:
        """Tells the edge that the path holds consent no more."""

    def speaks(self, transport: Transport) -> None:
        """Tells that the client sends with another SSRC than was known."""

    def connected(self, transport: Transport) -> None:
        """Tells that media is up, and that the time for which it can wait has changed."""


class Media(Protocol):
    """The receiver of what the client sends, in the clear; ``now`` is in seconds, monotonic."""

    def rtp(self, packet: bytes, now: float) -> None:
        """Takes an RTP packet that authenticated."""

    def rtcp(self, compound: bytes, now: float) -> None:
        """Takes an RTCP compound that authenticated."""

    def moved(self) -> None:
        """Tells that the client has another address, and that what went to the old one lately is lost."""


class Call(Protocol):
    """The call that a transport is for, which is told what becomes of it."""

    def connected(self) -> None:
        """Tells that DTLS is done: media may be sent, and comes as soon as this returns."""

    def channel_opened(self, channel: RTCDataChannel) -> None:
        """Gives a data channel that the client can use from now on."""

    def channels_aborted(self, reason: str, why: str, error: Exception | None) -> None:
        """Tells that SCTP was ended for what the client did with it."""

    def end(self, reason: str) -> None:
        """Tells that the transport has ended; ``reason`` is one of ``counters.ENDS``."""

    def fail(self, error: BaseException) -> None:
        """Tells that the transport has ended because of a fault of ours."""

    def gone(self) -> None:
        """Tells, once after ``close``, that the goodbye is said and the paths are given up."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs ``work`` beside everything else, and tells of its failure."""


class Kept(Protocol):
    """The keeping of a call's state where it outlives this process (``transceiver.survival``)."""

    def sends_rtp(self) -> None:
        """Counts a packet that is about to be sent with a number of its own."""

    def sends_rtcp(self) -> None:
        """Counts a compound that is about to be sent with a number of its own."""

    def after(self, send: Callable[[], None]) -> None:
        """Has something sent when the state is kept that it belongs to."""

    def leave(self) -> None:
        """Ends the keeping."""


class Transport:
    """The transport of one call. ``ufrag`` is the first one of ours, which names the call; ``dcid`` is the stream of a
    data channel that the client has negotiated, if any. ``ssrcs`` are those that the client is known to send with;
    ``spare_ms`` is how long its media may wait on its way."""

    owns: ClassVar[tuple[str, ...]] = ("_secure",)

    def __init__(
        self,
        offer: Offer,
        ufrag: str,
        certificate: Certificate | None,
        *,
        call: Call,
        media: Media,
        outbound: Outbound,
        backlog: Backlog,
        consent_s: float = CONSENT_S,
        dcid: int | None = None,
        span: Span = NOTHING,
    ) -> None:
        self.ufrag = ufrag
        self.ice = IceLite(
            ufrag,
            time.monotonic(),
            remote_ufrag=offer.ice_ufrag,
            remote_password=offer.ice_password,
            consent_s=consent_s,
        )
        self.opens_dtls = offer.dtls_client
        self.ssrcs = offer.ssrcs
        self.spare_ms = 0.0
        self.connected = False  # from the end of the handshake until DTLS is closed
        self._closed = False
        self._away = False  # between ``export`` or ``take_up`` and ``resume``
        self._connecting = False
        self._offer, self._dcid, self._certificate = offer, dcid, certificate
        self._call = call
        self._media = media
        self._out = outbound
        self._backlog = backlog
        self.kept: Kept | None = None
        self._secure = SecureTransport(self._send_dtls, certificate, client=offer.dtls_client)
        self._gate = Gate()
        self._span = span
        self._setup = Setup(time.monotonic(), span)
        self._last_path: Path | None = None  # for what is said after the last path's consent
        self._lost_paths: list[Path] = []
        self._log = logs.get().bind(call=call_id(ufrag), **span.fields)

    # --- as a value

    async def hold(self) -> None:
        """Stops reading DTLS, between two datagrams, so that ``export`` may follow; what comes is kept, and media goes
        on. The transport must be connected."""
        await self._secure.hold()

    def export(self, now: float) -> TransportState:
        """All of it, when it is held: budgets alone begin anew. It sends and takes nothing from then on, and tells the
        call nothing: whoever takes the state up goes on, on the same paths. Raises DtlsError where DTLS is closed."""
        for feed in self._backlog.take(self):
            feed()
        secure = self._secure.export()
        self._closed = self._away = True
        self.connected = False
        return self._state(secure, now)

    def answered(self, now: float) -> AnsweredState:
        """What an answer has promised of it, before anything has come."""
        assert self._certificate is not None
        certificate, key = self._certificate.exported
        return AnsweredState(self.ufrag, self._offer, self._dcid, self.ice.export(now), certificate, key)

    def reopen(self, ice: IceState, now: float) -> None:
        """Has the credentials that an answer named, in place of its own, before anything has come."""
        self.ice = IceLite.take_up(ice, now)

    def snapshot(self, now: float) -> TransportState:
        """All of it, of one that is connected and goes on. Whoever takes it up jumps over the numbers that were used
        since."""
        return self._state(self._secure.snapshot(), now)

    def _state(self, secure: SecureState, now: float) -> TransportState:
        return TransportState(
            ufrag=self.ufrag,
            offer=self._offer,
            dcid=self._dcid,
            ssrcs=self.ssrcs,
            spare_ms=self.spare_ms,
            ice=self.ice.export(now),
            secure=secure,
            authentic_ssrcs=self._gate.ssrcs,
        )

    def take_up(self, state: TransportState, now: float) -> list[RTCDataChannel]:
        """Goes on where ``export`` left off at ``now``, once it is told to ``resume``; until then it sends and takes
        nothing. Returns the data channels; the call is told neither of these nor that it is connected. It may be the
        transport that left, or a new one."""
        ice, gate = IceLite.take_up(state.ice, now), Gate(state.authentic_ssrcs)
        secure, channels = SecureTransport.take_up(
            self._send_dtls,
            state.secure,
            negotiated=state.dcid,
            on_channel=self._call.channel_opened,
            aborted=self._call.channels_aborted,
        )
        self._secure.forsake()
        self._secure = secure
        secure.on_close(self._closed_by_peer)
        self._closed = self._away = self._connecting = True
        self.ice, self._gate = ice, gate
        self.ssrcs, self.spare_ms = state.ssrcs, state.spare_ms
        return channels

    def resume(self) -> None:
        """Sends and takes again, from the next datagram on: after ``hold`` or ``take_up``."""
        if self._away:
            self._closed = self._away = False
            self.connected = True
        self._secure.release()

    def forsake(self) -> None:
        """Ends it without a word to anybody, because the call is served elsewhere."""
        self._closed = self._away = True
        self.connected = False
        self._backlog.forget(self)
        self._secure.forsake()

    # --- datagrams in

    def check(self, message: stun.Message, path: Path, *, free: bool = True) -> bytes | None:
        """The response to a STUN request addressed to this transport, or None where it gets none: ``ice.refusal`` is
        why. ``free`` where no other transport holds the path."""
        return None if self._closed else self.ice.check(message, path, time.monotonic(), free=free)

    def dtls(self, datagram: bytes, path: Path | None = None) -> None:
        """Takes a DTLS datagram from a path on which something authentic came; None is the selected one."""
        self.ice.came(path or self.ice.selected, len(datagram))
        feed = partial(self._secure.feed, datagram)
        taken = self._gate.admits_dtls(time.monotonic()) and self._backlog.put(self, feed)
        RX_DATAGRAMS["dtls" if taken else "overflow"] += 1

    def media(self, datagram: bytes, now: float) -> bool:
        """Takes an SRTP or SRTCP datagram from a path of the transport's, that came at ``now`` in seconds, monotonic.
        Returns whether it was authentic: a bad one is dropped and never ends anything."""
        srtp = self._secure.srtp
        plain = self._gate.opened(datagram, srtp, now) if srtp is not None and self.connected else "too_early"
        if isinstance(plain, str):
            RX_DATAGRAMS[plain] += 1
            return False
        if rtp.is_rtcp(datagram):
            RX_DATAGRAMS["rtcp"] += 1
            self._media.rtcp(plain, now)
        else:
            self._media.rtp(plain, now)
        return True

    def media_if_authentic(self, datagram: bytes) -> bool:
        """Takes an SRTP datagram from any path. Returns False, and has neither counted nor used it, unless it
        is ours."""
        now = time.monotonic()
        srtp = self._secure.srtp
        plain = self._gate.opened(datagram, srtp, now) if srtp is not None and self.connected else "too_early"
        if isinstance(plain, str):
            return False
        self._media.rtp(plain, now)
        return True

    def moved(self) -> None:
        """Takes note that the client has another address, and answered there."""
        self._log.info("path moved")
        self._span.event("path_moved")
        self._media.moved()

    # --- what the media sends

    def send_rtp(self, packet: bytes) -> bytes:
        """Sends an RTP packet. Returns the datagram that it went in, for ``send``, or nothing where it is too long."""
        if len(packet) > MAX_RTP_BYTES:
            TX_DATAGRAMS["too_long"] += 1
            return b""
        if self.kept is not None:
            self.kept.sends_rtp()
        srtp = self._secure.srtp
        assert srtp is not None
        datagram = srtp.protect(packet)
        self.send(datagram)
        return datagram

    def send_rtcp(self, compound: bytes) -> None:
        """Sends an RTCP compound."""
        if self.kept is not None:
            self.kept.sends_rtcp()
        self.send(self._secure.protect_rtcp(compound))

    def _send_dtls(self, datagram: bytes) -> None:
        if self.kept is None:
            self.send(datagram)
        else:
            self.kept.after(partial(self.send, datagram))

    def send(self, datagram: bytes) -> None:
        """Sends a datagram of this transport's, perhaps once more, on the selected path."""
        path = self.ice.selected or self._last_path
        if path is None or self._away:
            TX_DATAGRAMS["no_path"] += 1
        elif path == self._last_path or self.ice.may_send(path, len(datagram)):
            self._out.send(self, path, datagram)
        else:
            TX_DATAGRAMS["unproved"] += 1
            if probe := self.ice.probe(path, time.monotonic()):
                self._out.send(self, path, probe)

    def speaks(self, ssrc: int) -> None:
        """Takes note that the client's media has another SSRC than was known."""
        self.ssrcs = (ssrc,)
        self._setup.heard(time.monotonic())
        self._out.speaks(self)

    # --- life

    def connect(self) -> None:
        """Begins DTLS, once: a path is proven and the edge knows it."""
        if not self._connecting:
            self._connecting = True
            self._setup.proven(time.monotonic())
            self._backlog.put(self, self._shake_hands)

    def _shake_hands(self) -> None:
        self._call.spawn(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                await self._secure.handshake(self._offer.fingerprints)
        except (DtlsError, TimeoutError) as e:
            if not self._closed:
                self._log.warning("dtls failed", why=str(e) or f"no answer in {_HANDSHAKE_S} s")
            self._call.end("dtls_failed")
            return
        if self._closed:
            return  # hung up while the last flight was on its way
        now = time.monotonic()
        self.ice.secured(now)
        self._setup.secured(now)
        self._secure.on_close(self._closed_by_peer)
        self._call.connected()
        if self._closed:
            return
        self.connected = True
        self._out.connected(self)
        if self._offer.sctp_port:
            await self._secure.open_sctp(
                self._offer.sctp_port,
                self._offer.max_message_bytes,
                self._call.channel_opened,
                negotiated=self._dcid,
                aborted=self._call.channels_aborted,
            )

    def _closed_by_peer(self) -> None:
        self.connected = False
        self._call.end("closed_by_peer")

    def sweep(self, now: float) -> None:
        """Called about once a second: gives up paths, and ends the call when consent is gone (RFC 7675)."""
        last = self.ice.selected
        lost = self.ice.expire(now)
        if reason := self.ice.ended(now):
            # The edge forgets the path when the client has been told.
            self._last_path, self._lost_paths = last, lost
            self._call.end(reason)
            return
        for path in lost:
            self._out.path_down(self, path)
        for path, probe in self.ice.due(now):
            self._out.send(self, path, probe)

    def fail(self, error: BaseException) -> None:
        """Ends the call: a datagram met a fault of ours."""
        self._call.fail(error)

    def close(self) -> None:
        """Says goodbye and gives the paths up. When that is done, the call is told that it is ``gone``."""
        self._closed = True
        self._backlog.forget(self)
        self._call.spawn(self._goodbye())

    async def _goodbye(self) -> None:
        try:
            await self._secure.close()
        finally:
            self.connected = False
            for path in (*self.ice.paths, *self._lost_paths):
                self._out.path_down(self, path)
            self._call.gone()
