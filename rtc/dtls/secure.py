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
from functools import cached_property
from importlib.metadata import version
from typing import Any

from aiortc import RTCCertificate, RTCDataChannel, RTCDtlsTransport, RTCSctpTransport
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters
from aiortc.rtcdtlstransport import State as DtlsState
from aiortc.rtcsctptransport import RTCSctpCapabilities
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct
from OpenSSL import SSL, crypto

from rtc.dtls import fingerprints as prints
from rtc.dtls import srtp
from rtc.dtls.peer_keys import may_be_checked
from rtc.dtls.pipe import Pipe
from rtc.dtls.srtp import Srtp
from rtc.dtls.transport import DtlsTransport, DtlsTransportState
from rtc.sctp import MAX_MESSAGE_BYTES
from rtc.sctp import state as association
from rtc.sctp.association import Sctp
from rtc.sctp.state import AssociationState

__all__ = ["MAX_RTP_BYTES", "Certificate", "DtlsError", "SecureState", "SecureTransport", "check_aiortc"]

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
LAST_WORDS_S = 0.5  # that what was said last may take until the peer has it
MAX_RTP_BYTES = 1300  # pylibsrtp takes 1500 less its largest trailer of 144, and paths are often narrower


Aborted = Callable[[str, str, Exception | None], None]


def _nobody_asks(reason: str, why: str, error: Exception | None) -> None:
    pass


class DtlsError(Exception):
    """A handshake that did not complete, or a transport that is not connected; the text says why."""


_DTLS_ATTRIBUTES = ("_data_receiver", "_role", "_ssl", "_state", "_task", "_transport")
_SCTP_ATTRIBUTES = (
    *("_association_state", "_data_channel_queue", "_data_channels", "_flight_size", "_outbound_queue"),
    *("_reconfig_deferred", "_reconfig_request", "_sent_queue", "_t1_chunk", "_t2_chunk"),
    *association.PLAIN,
    *association.SETS,
)


def check_aiortc() -> None:
    """Raises RuntimeError with one line if this aiortc lacks a private name that is used here."""
    names = {
        RTCCertificate: ("_create_ssl_context",),
        RTCDtlsTransport: (
            *("_set_role", "_set_state", "_recv_next", "_write_ssl", "_send_data", "_register_data_receiver"),
            *("_validate_peer_identity", "_setup_srtp", "_unregister_data_receiver"),
        ),
        RTCDataChannel: ("_setReadyState", "_addBufferedAmount"),
        RTCSctpTransport: (
            *("_abort", "_handle_data", "_receive", "_receive_chunk", "_receive_data_chunk", "_receive_sack_chunk"),
            *("_receive_forward_tsn_chunk", "_reset_deferred_streams", "_send_chunk", "_send_sack", "_set_state"),
            *("_flight_size_increase", "_flight_size_decrease", "_data_channel_receive", "_data_channel_flush"),
            *("_t1_start", "_t2_start", "_t3_start", "_reconfig_timer_start"),
            *("_t1_cancel", "_t2_cancel", "_t3_cancel", "_reconfig_timer_cancel"),
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

    @cached_property
    def exported(self) -> tuple[bytes, bytes]:
        """The certificate and its key, both as DER."""
        pkcs8 = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        der = serialization.Encoding.DER
        return self._cert.public_bytes(der), self._key.private_bytes(der, *pkcs8)

    @classmethod
    def taken_up(cls, certificate: bytes, key: bytes) -> Certificate:
        """The certificate that has been ``exported``. Raises ValueError where it is none."""
        found = serialization.load_der_private_key(key, None)
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise ValueError("a key of another kind")
        return cls(found, x509.load_der_x509_certificate(certificate))

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint as SDP writes it (RFC 8122): ``AB:CD:...``."""
        return prints.of(self._cert, "sha-256")


def _take(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, verified: int) -> bool:
    """Accepts any certificate, except one whose key costs too much to check. OpenSSL asks for each before it uses the
    key."""
    return may_be_checked(certificate, depth)


class SecureState(Struct, frozen=True):
    """A connected transport as a value; ``held`` are datagrams of DTLS that have not been read."""

    dtls: DtlsTransportState
    sctp: AssociationState | None
    held: tuple[bytes, ...]


class SecureTransport:
    """DTLS, the SRTP that is keyed by it, and SCTP with its data channels above it. ``certificate`` is for the
    handshake: what has been taken up needs none. ``srtp`` is there from the end of the handshake on."""

    owns = ("_sctp", "_dtls", "_pipe")

    def __init__(self, send: Callable[[bytes], None], certificate: Certificate | None, *, client: bool) -> None:
        self._pipe = Pipe(send, controlling=not client)
        self._dtls = DtlsTransport(self._pipe, [certificate])
        self._dtls._set_role("client" if client else "server")
        self.srtp: Srtp | None = None
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
        self.srtp = self._dtls.srtp
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
        self._sctp = self._association(on_channel, negotiated, aborted)
        await self._sctp.start(RTCSctpCapabilities(maxMessageSize=max_message_bytes), port)

    @property
    def sctp(self) -> Sctp | None:
        """The association, for those who open data channels themselves."""
        return self._sctp

    def protect(self, rtp: bytes) -> bytes:
        """SRTP from RTP of at most MAX_RTP_BYTES. The transport must be connected."""
        assert self.srtp is not None
        return self.srtp.protect(rtp)

    def protect_rtcp(self, rtcp: bytes) -> bytes:
        """SRTCP from RTCP."""
        assert self.srtp is not None
        return self.srtp.protect_rtcp(rtcp)

    def unprotect(self, srtp: bytes) -> bytes | None:
        """RTP from SRTP, or None where it does not authenticate or is a replay."""
        return None if self.srtp is None else self.srtp.unprotect(srtp)

    def unprotect_rtcp(self, srtcp: bytes) -> bytes | None:
        """RTCP from SRTCP, or None as above."""
        return None if self.srtp is None else self.srtp.unprotect_rtcp(srtcp)

    # --- as a value

    async def hold(self) -> None:
        """Stops reading what the peer sends, between two datagrams; what comes is kept."""
        await self._pipe.hold()

    def export(self) -> SecureState:
        """All of it. It is silent and deaf from then on, and ``on_close`` is not called: whoever takes it up goes on.
        Raises DtlsError unless it is connected and held."""
        if self._pipe.held is None or not self.connected:
            raise DtlsError("only what is connected and held can be taken up by another")
        state = self.snapshot()
        self.forsake()
        return state

    def snapshot(self) -> SecureState:
        """All of it, of one that is connected and goes on: numbers that it uses from now on are used twice if the
        snapshot is taken up, unless that one jumps over them. What has come and was not read is in it only where it
        is held."""
        sctp = None if self._sctp is None else self._sctp.snapshot()
        return SecureState(self._dtls.export(), sctp, self._pipe.held or ())

    def forsake(self) -> None:
        """Ends it without a word to anybody: it is silent and deaf."""
        if self._sctp is not None:
            self._sctp.forsake()
            self._sctp = None
        self._dtls.remove_all_listeners()
        self._pipe.close()

    def release(self) -> None:
        """Reads on, after ``hold`` or ``take_up``."""
        self._pipe.release()

    @classmethod
    def take_up(
        cls,
        send: Callable[[bytes], None],
        state: SecureState,
        *,
        negotiated: int | None = None,
        on_channel: Callable[[RTCDataChannel], None] = lambda channel: None,
        aborted: Aborted = _nobody_asks,
    ) -> tuple[SecureTransport, list[RTCDataChannel]]:
        """What goes on where ``export`` left off, once it is told to ``release``; until then it is held. The other
        arguments are as of ``open_sctp``. With it come the data channels that there are, for which ``on_channel`` is
        not called. Raises whatever a state raises that ``export`` did not give, and leaves nothing behind."""
        secure = cls(send, None, client=state.dtls.role == "client")
        channels: list[RTCDataChannel] = []
        try:
            secure._pipe.settle()
            secure._pipe.keep(state.held)
            secure._dtls.take_up(state.dtls)
            secure.srtp = secure._dtls.srtp
            if state.sctp is not None:
                secure._sctp = secure._association(on_channel, negotiated, aborted)
                channels = secure._sctp.take_up(state.sctp)
        except Exception:
            secure.forsake()
            raise
        return secure, channels

    def _association(
        self, on_channel: Callable[[RTCDataChannel], None], negotiated: int | None, aborted: Aborted
    ) -> Sctp:
        sctp = Sctp(self._dtls, self._dtls.share, most_bytes=MAX_MESSAGE_BYTES, aborted=aborted, negotiated=negotiated)
        sctp.on("datachannel", on_channel)
        return sctp

    async def close(self) -> None:
        """Says goodbye to the peer (SCTP abort, DTLS close_notify) and ends."""
        with contextlib.suppress(ConnectionError):
            if self._sctp is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._sctp.drained(), LAST_WORDS_S)
            if self._sctp is not None:  # it may have been forsaken meanwhile
                await self._sctp.stop()
            await self._dtls.stop()
        self._pipe.close()
