"""DTLS-SRTP and data channels by aiortc, on a pipe of our own instead of a socket.

``RTCDtlsTransport`` and ``RTCSctpTransport`` ask little of the ICE transport below them: ``role``, ``state``,
``_recv()`` and ``_send()``. ``Pipe`` is that; datagrams are fed into it and leave through a callback. RTP and RTCP
never pass through. aiortc and OpenSSL shake hands; DTLS records and SRTP are ours from then on.

The private names this leans on are checked at start-up (``check_aiortc``), because they may move with any release.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from aiortc import RTCCertificate, RTCDataChannel, RTCDtlsTransport, RTCSctpTransport
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters
from aiortc.rtcdtlstransport import State as DtlsState
from aiortc.rtcsctptransport import RTCSctpCapabilities
from OpenSSL import SSL, crypto

from rtc.dtls import fingerprints as prints
from rtc.dtls import flights, srtp
from rtc.dtls.peer_keys import may_be_checked
from rtc.dtls.srtp import Srtp
from rtc.dtls.transport import DtlsTransport
from rtc.sctp import MAX_MESSAGE_BYTES
from rtc.sctp.association import Sctp

__all__ = ["MAX_RTP_BYTES", "Certificate", "DtlsError", "SecureTransport", "check_aiortc"]

# OpenSSL waits 1 s before it sends a flight again; a lost datagram would cost that much of everybody's patience.
RESEND_AFTER_S = (0.1, 0.2, 0.4)
_DTLS_1_2 = 0xFEFD
# Ours is an ECDSA certificate. The peer's may be RSA, as GStreamer's is, and some that pages ask for: where the peer is
# the DTLS server, the suite has to allow it. No more than these: a ClientHello, and a check of ours after it, have to
# fit in what an address may draw that has checked once (rtc/ice/allowance.py).
_CIPHERS = ":".join(
    f"ECDHE-{kind}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "CHACHA20-POLY1305", "AES256-GCM-SHA384")
    for kind in ("ECDSA", "RSA")
).encode()
_OP_NO_ENCRYPT_THEN_MAC = 1 << 19  # which is for other suites than these (RFC 7366)
_QUEUE = 64
LAST_WORDS_S = 0.5  # that what was said last may take until the peer has it
MAX_RTP_BYTES = 1300  # pylibsrtp takes 1500 less its largest trailer of 144, and paths are often narrower


Aborted = Callable[[str, str, Exception | None], None]


def _nobody_asks(reason: str, why: str, error: Exception | None) -> None:
    pass


class DtlsError(Exception):
    """A handshake that did not complete; the text says why."""


_DTLS_ATTRIBUTES = ("_data_receiver", "_role", "_ssl", "_state", "_task", "_transport")
_SCTP_ATTRIBUTES = (
    *("_advertised_rwnd", "_association_state", "_cwnd", "_data_channel_queue", "_data_channels", "_flight_size"),
    *("_last_received_tsn", "_last_sacked_tsn", "_local_verification_tag", "_outbound_queue", "_reconfig_deferred"),
    *("_sack_needed", "_sent_queue"),
)


def check_aiortc() -> None:
    """Raises RuntimeError with one line if this aiortc lacks a private name that is used here."""
    names = {
        RTCCertificate: ("_create_ssl_context",),
        RTCDtlsTransport: (
            *("_set_role", "_set_state", "_recv_next", "_write_ssl", "_send_data", "_register_data_receiver"),
            *("_validate_peer_identity", "_setup_srtp"),
        ),
        RTCDataChannel: ("_setReadyState",),
        RTCSctpTransport: (
            *("_abort", "_handle_data", "_receive", "_receive_chunk", "_receive_data_chunk", "_receive_sack_chunk"),
            *("_receive_forward_tsn_chunk", "_reset_deferred_streams", "_send_chunk", "_send_sack", "_set_state"),
            *("_flight_size_increase", "_flight_size_decrease", "_data_channel_receive", "_data_channel_flush"),
        ),
    }
    missing = [f"{cls.__name__}.{name}" for cls, private in names.items() for name in private if not hasattr(cls, name)]
    missing += srtp.missing()
    # Attributes of instances.
    set_here = RTCSctpTransport.__init__.__code__.co_names
    missing += [f"RTCSctpTransport.{name}" for name in _SCTP_ATTRIBUTES if name not in set_here]
    set_here = RTCDtlsTransport.__init__.__code__.co_names
    missing += [f"RTCDtlsTransport.{name}" for name in _DTLS_ATTRIBUTES if name not in set_here]
    if missing:
        raise RuntimeError(
            f"aiortc {version('aiortc')} has no {', '.join(missing)}: install the version in pyproject.toml"
        )


class Certificate(RTCCertificate):
    """A self-signed ECDSA P-256 certificate that speaks DTLS 1.2 and nothing else.

    A newer OpenSSL would otherwise move to DTLS 1.3 by itself, which nobody has tried here.
    """

    def _create_ssl_context(self, *args: Any, **kwargs: Any) -> SSL.Context:
        context = super()._create_ssl_context(*args, **kwargs)
        context.set_max_proto_version(_DTLS_1_2)
        context.set_cipher_list(_CIPHERS)
        # Each would be a handshake's work for a record's.
        context.set_options(SSL.OP_NO_RENEGOTIATION | _OP_NO_ENCRYPT_THEN_MAC)
        # Who the peer is its fingerprint says, so its chain is worth no work: OpenSSL goes one certificate beyond.
        context.set_verify_depth(0)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _take)
        return context

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint as SDP writes it (RFC 8122): ``AB:CD:...``."""
        return prints.of(self._cert, "sha-256")


def _take(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, verified: int) -> bool:
    """Accepts any certificate, except one whose key costs too much to check. OpenSSL asks for each before it uses the
    key."""
    return may_be_checked(certificate, depth)


class Pipe:
    """The object that aiortc takes for an ICE transport. ``send`` is called with each datagram that aiortc wants to
    send."""

    def __init__(self, send: Callable[[bytes], None], controlling: bool) -> None:
        self.role = "controlling" if controlling else "controlled"
        self.state = "completed"
        self._sender = send
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE)
        self._flight: list[bytes] | None = []
        self._resends: list[asyncio.TimerHandle] = []
        self.overflowed = 0

    def feed(self, datagram: bytes) -> None:
        """Takes a DTLS datagram from the peer. Past the bound it is dropped and counted, as a network would drop it."""
        if self._flight is not None and not flights.is_bearable(datagram):
            self.overflowed += 1
            return
        self._forget_flight()
        try:
            self._queue.put_nowait(datagram)
        except asyncio.QueueFull:
            self.overflowed += 1

    def settle(self) -> None:
        """Stops remembering flights, because the handshake is done."""
        self._forget_flight()
        self._flight = None

    def close(self) -> None:
        """Ends whoever waits in ``_recv``."""
        self.settle()
        self.state = "closed"
        while self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def _recv(self) -> bytes:
        data = await self._queue.get()
        if data is None:
            raise ConnectionError("closed")
        return data

    async def _send(self, data: bytes) -> None:
        if self.state == "closed":
            raise ConnectionError("closed")
        if self._flight is not None:
            if not self._flight:
                loop = asyncio.get_running_loop()
                self._resends = [loop.call_later(after, self._resend) for after in RESEND_AFTER_S]
            self._flight.append(data)
        self._sender(data)

    def _resend(self) -> None:
        for datagram in self._flight or ():
            self._sender(datagram)

    def _forget_flight(self) -> None:
        for timer in self._resends:
            timer.cancel()
        self._resends.clear()
        if self._flight:
            self._flight.clear()


class SecureTransport:
    """DTLS, the SRTP that is keyed by it, and SCTP with its data channels above it."""

    def __init__(self, send: Callable[[bytes], None], certificate: Certificate, *, client: bool) -> None:
        self._pipe = Pipe(send, controlling=not client)
        self._dtls = DtlsTransport(self._pipe, [certificate])
        self._dtls._set_role("client" if client else "server")
        self._srtp: Srtp | None = None
        self._sctp: Sctp | None = None

    @property
    def connected(self) -> bool:
        """Whether SRTP keys are there and the peer has not closed."""
        return bool(self._dtls._state == DtlsState.CONNECTED)

    @property
    def overflowed(self) -> int:
        """The number of datagrams that were dropped because the peer sent faster than DTLS read."""
        return self._pipe.overflowed

    def feed(self, datagram: bytes) -> None:
        """Takes a datagram whose first byte is 20 to 63 (RFC 7983)."""
        self._pipe.feed(datagram)

    async def handshake(self, fingerprints: Sequence[tuple[str, str]]) -> None:
        """Completes when SRTP is keyed. ``fingerprints`` are the peer's (algorithm, value) from its SDP.

        Raises DtlsError when the handshake fails or a fingerprint does not match.
        """
        remote = RTCDtlsParameters([RTCDtlsFingerprint(algorithm=a, value=v) for a, v in fingerprints])
        await self._dtls.start(remote)
        if not self.connected:
            raise DtlsError("handshake failed, or the certificate is not the one that the SDP promised")
        self._srtp = self._dtls.srtp
        self._pipe.settle()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Has ``callback()`` called once, when the peer closes DTLS (close_notify) or the transport ends."""

        def changed() -> None:
            if self._dtls._state in (DtlsState.CLOSED, DtlsState.FAILED):
                callback()

        self._dtls.on("statechange", changed)

    async def open_sctp(
        self,
        port: int,
        max_message_bytes: int,
        on_channel: Callable[[RTCDataChannel], None],
        *,
        negotiated: int | None = None,
        aborted: Aborted = _nobody_asks,
    ) -> None:
        """Starts SCTP towards the peer's ``port``, whose messages may have ``max_message_bytes``, or any number where
        that is 0. ``on_channel`` gets each data channel that the peer opens, and that of stream ``negotiated``, which
        both sides know of, as soon as it can be used; ``aborted`` is as ``Sctp`` says."""
        self._sctp = Sctp(
            self._dtls, self._dtls.share, most_bytes=MAX_MESSAGE_BYTES, aborted=aborted, negotiated=negotiated
        )
        self._sctp.on("datachannel", on_channel)
        await self._sctp.start(RTCSctpCapabilities(maxMessageSize=max_message_bytes), port)

    @property
    def sctp(self) -> Sctp | None:
        """The association, for those who open data channels themselves."""
        return self._sctp

    def protect(self, rtp: bytes) -> bytes:
        """SRTP from RTP of at most MAX_RTP_BYTES. The transport must be connected."""
        assert self._srtp is not None
        return self._srtp.protect(rtp)

    def protect_rtcp(self, rtcp: bytes) -> bytes:
        """SRTCP from RTCP."""
        assert self._srtp is not None
        return self._srtp.protect_rtcp(rtcp)

    def unprotect(self, srtp: bytes) -> bytes | None:
        """RTP from SRTP, or None where it does not authenticate or is a replay."""
        return None if self._srtp is None else self._srtp.unprotect(srtp)

    def unprotect_rtcp(self, srtcp: bytes) -> bytes | None:
        """RTCP from SRTCP, or None as above."""
        return None if self._srtp is None else self._srtp.unprotect_rtcp(srtcp)

    async def close(self) -> None:
        """Says goodbye to the peer (SCTP abort, DTLS close_notify) and ends."""
        with contextlib.suppress(ConnectionError):
            if self._sctp is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._sctp.drained(), LAST_WORDS_S)
                await self._sctp.stop()
            await self._dtls.stop()
        self._pipe.close()
