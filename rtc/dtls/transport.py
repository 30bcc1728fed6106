"""aiortc's DTLS transport, with records of our own after the handshake, for peers that mean harm: it reads all that a
datagram has, and no more than its share.

OpenSSL shakes hands and is let go. aiortc's flights are of one datagram; here they may be longer, and the peer may have
promised several certificates.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

from aiortc import RTCDtlsTransport
from aiortc.rtcdtlstransport import RTCDtlsParameters, State
from msgspec import Struct
from OpenSSL import SSL

from rtc.dtls import fingerprints, flights, records
from rtc.dtls.records import RecordLayer, RecordState
from rtc.dtls.srtp import PROFILES, Srtp, master_keys
from rtc.dtls.srtp_state import SrtpState
from rtc.share import Share

__all__ = ["DtlsTransport", "DtlsTransportState"]

_BIO_BYTES = 1 << 16
_MOST_KEPT = 32  # records of epoch 1 that came before the handshake was done
# A client that lost our last flight sends its own again after 50 ms to 1 s, and then after twice as long each time.
_MOST_ANSWERS = 12
_FATAL, _WARNING, _CLOSE_NOTIFY = 2, 1, 0
_NO_RENEGOTIATION = 100
_HELLO_REQUEST, _CLIENT_HELLO, _FINISHED = 0, 1, 20  # handshake messages


class DtlsTransportState(Struct, frozen=True):
    """A connected transport as a value. ``flight`` has the datagrams of our last flight while the peer may miss it,
    ``answers`` how many more times it, or a refusal, may be sent."""

    role: str
    records: RecordState
    srtp: SrtpState
    flight: tuple[bytes, ...]
    answers: int


class DtlsTransport(RTCDtlsTransport):
    """``share`` is what its reading may take, ``srtp`` is there once it is connected."""

    def __init__(self, transport: Any, certificates: list[Any]) -> None:
        super().__init__(transport, certificates)
        self.share = Share()
        self.srtp: Srtp | None = None
        self._records: RecordLayer | None = None
        self._early: deque[bytes] = deque(maxlen=_MOST_KEPT)
        self._last_flight: tuple[bytes, ...] = ()
        self._answers = _MOST_ANSWERS
        # Of the last record of epoch 1 that OpenSSL wrote.
        self._sequence, self._nonce = -1, 0

    # --- in

    async def _recv_next(self) -> None:
        if self._records is not None:
            await self._read_next(self._records)
            return
        ssl = self._ssl
        assert ssl is not None
        datagram = await self._next(ssl)
        self.share.begin()
        if datagram is None:
            ssl.DTLSv1_handle_timeout()
            await self._write_ssl()
            return
        for header in records.headers(datagram):
            if header.epoch:
                self._early.append(datagram[header.start : header.end])
        try:
            ssl.bio_write(datagram)
            self._shake_hands(ssl)
            await self._write_ssl()
        finally:
            await self.share.rest(done=True)

    async def _read_next(self, layer: RecordLayer) -> None:
        early = bool(self._early)
        datagram = b"".join(self._early) if early else await self.transport._recv()
        self._early.clear()
        self.share.begin()
        try:
            await self._read(layer, datagram, early)
        finally:
            await self.share.rest(done=True)

    async def _next(self, ssl: SSL.Connection) -> bytes | None:
        """The next datagram, or None when a flight of the handshake is to be sent again."""
        timeout = ssl.DTLSv1_get_timeout()
        try:
            data: bytes = await asyncio.wait_for(self.transport._recv(), timeout)
        except TimeoutError:
            return None
        return data

    def _shake_hands(self, ssl: SSL.Connection) -> None:
        # An error is told again by the next step of the handshake, which aiortc then gives up. What else it reads is
        # read once more when the records are ours.
        try:
            ssl.recv(records.MOST_CONTENT)
        except SSL.ZeroReturnError:
            raise ConnectionError from None
        except SSL.Error:
            pass

    async def _read(self, layer: RecordLayer, datagram: bytes, early: bool) -> None:
        """``early``: it came before the handshake was done, and OpenSSL has read the part of it that was the
        handshake's."""
        for header in records.headers(datagram):
            content = layer.open(datagram, header)
            if not content:
                continue
            if header.kind == records.APPLICATION_DATA:
                self._last_flight = ()  # it has the handshake behind it
                if self._data_receiver is not None and self._state == State.CONNECTED:
                    await self._data_receiver._handle_data(content)
            elif header.kind == records.ALERT:
                # One that is fatal is the peer's end as well (RFC 6347 section 4.1.2.7 leaves the others alone).
                if content[0] == _FATAL or content[1:2] == bytes([_CLOSE_NOTIFY]):
                    raise ConnectionError
            elif header.kind == records.HANDSHAKE and not early:
                await self._answer(layer, content[0])
            await self.share.rest()

    async def _answer(self, layer: RecordLayer, message: int) -> None:
        """Answers a handshake message that comes after the handshake."""
        if message == _FINISHED:
            # Sent again, as our last flight was lost: the same datagrams, as if the network had had them twice.
            answer = self._last_flight
        elif message in (_HELLO_REQUEST, _CLIENT_HELLO):
            answer = (layer.seal(records.ALERT, bytes([_WARNING, _NO_RENEGOTIATION])),)
        else:
            return
        if self._answers:
            self._answers -= 1
            for datagram in answer:
                await self._transport._send(datagram)

    # --- out

    async def _send_data(self, data: bytes) -> None:
        if self._records is None or self._state != State.CONNECTED:
            raise ConnectionError("DTLS is not connected")
        await self._transport._send(self._records.seal(records.APPLICATION_DATA, data))

    async def _write_ssl(self) -> None:
        if self._ssl is None:
            return
        flight = b""
        with contextlib.suppress(SSL.Error):  # it is empty
            while True:
                flight += self._ssl.bio_read(_BIO_BYTES)
        if not flight:
            return
        datagrams = tuple(flights.datagrams(flight))
        for header in records.headers(flight):
            if header.epoch:
                self._sequence = header.sequence
                at = header.start + records.HEADER_BYTES
                self._nonce = int.from_bytes(flight[at : at + 8], "big")
                self._last_flight = datagrams if self._role == "server" else ()
        for datagram in datagrams:
            await self._transport._send(datagram)

    async def stop(self) -> None:
        """Says goodbye (close_notify) and ends."""
        if self._records is None:
            await super().stop()
            return
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._state == State.CONNECTED:
            with contextlib.suppress(ConnectionError):
                await self._transport._send(self._records.seal(records.ALERT, bytes([_WARNING, _CLOSE_NOTIFY])))

    # --- keys

    def _validate_peer_identity(self, remoteParameters: RTCDtlsParameters) -> None:
        assert self._ssl is not None
        certificate = self._ssl.get_peer_certificate(as_cryptography=True)
        promised = [(f.algorithm, f.value) for f in remoteParameters.fingerprints]
        if certificate is None or not fingerprints.is_promised(certificate, promised):
            self._set_state(State.FAILED)

    def _setup_srtp(self) -> None:
        """Called by aiortc when the handshake is done: takes the keys, and lets OpenSSL go."""
        ssl = self._ssl
        assert ssl is not None
        name = ssl.get_selected_srtp_profile()
        secret, ours_first = ssl.master_key(), self._role == "client"
        if name not in PROFILES or self._sequence < 0 or secret is None:
            self._set_state(State.FAILED)
            return
        profile = PROFILES[name]
        exported = ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (profile.key + profile.salt))
        ours, theirs = master_keys(profile, exported)[:: 1 if ours_first else -1]
        self.srtp = Srtp(name, ours, theirs)
        both = records.derived(
            ssl.get_cipher_name() or "", secret, ssl.client_random() or b"", ssl.server_random() or b""
        )
        mine, its = both[:: 1 if ours_first else -1]
        self._records = RecordLayer(mine, its, sequence=self._sequence + 1, nonce=self._nonce + 1 & (1 << 64) - 1)
        self._ssl = None

    # --- as a value

    def export(self) -> DtlsTransportState:
        """The whole state, once it is connected and nothing is being read. Whoever takes it up goes on, and this object
        must not: it would use sequence numbers twice."""
        assert self._records is not None
        assert self.srtp is not None
        return DtlsTransportState(
            self._role, self._records.export(), self.srtp.export(), self._last_flight, self._answers
        )

    def take_up(self, state: DtlsTransportState) -> None:
        """Goes on where ``export`` left off, in place of a handshake; reading begins at once."""
        self._set_role(state.role)
        self._records = RecordLayer.take_up(state.records)
        self.srtp = Srtp.take_up(state.srtp)
        self._last_flight, self._answers = state.flight, state.answers
        self.encrypted = True
        self._set_state(State.CONNECTED)
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        try:
            while True:
                await self._recv_next()
        except ConnectionError:
            pass
        finally:
            self._set_state(State.CLOSED)
