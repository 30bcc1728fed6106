"""aiortc's DTLS transport, hardened against hostile peers: it reads every record of a datagram, within the session's
share.

aiortc reads one record of each datagram. What follows it stays in OpenSSL's buffer, which grows for as long as the call
does. And it reads for as long as there are datagrams, which may be longer than others can wait. Its flights are of one
datagram; here they may be longer, and the peer may have promised several certificates.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from aiortc import RTCDtlsTransport
from aiortc.rtcdtlstransport import RTCDtlsParameters, State
from OpenSSL import SSL

from rtc.dtls import fingerprints, flights
from rtc.share import Share

__all__ = ["DtlsTransport"]

_BIO_BYTES = 1 << 16
_RECORD_BYTES = 1500  # of a record's content: more is no SCTP packet of anybody's


class DtlsTransport(RTCDtlsTransport):
    """``share`` is what its reading may take."""

    def __init__(self, transport: Any, certificates: list[Any]) -> None:
        super().__init__(transport, certificates)
        self.share = Share()

    async def _recv_next(self) -> None:
        ssl = self._ssl
        assert ssl is not None
        datagram = await self._next(ssl)
        self.share.begin()
        if datagram is None:
            ssl.DTLSv1_handle_timeout()
            await self._write_ssl()
            return
        try:
            ssl.bio_write(datagram)
            await (self._read(ssl) if self.encrypted else self._shake_hands(ssl))
            await self._write_ssl()
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

    async def _shake_hands(self, ssl: SSL.Connection) -> None:
        # An error is told again by the next step of the handshake, which aiortc then gives up.
        try:
            ssl.recv(_RECORD_BYTES)
        except SSL.ZeroReturnError:
            raise ConnectionError from None
        except SSL.Error:
            pass

    async def _read(self, ssl: SSL.Connection) -> None:
        while True:
            try:
                data = ssl.recv(_RECORD_BYTES)
            except SSL.WantReadError:
                return
            except SSL.Error as e:
                await self._write_ssl()
                # An alert that is fatal is the peer's end as well (RFC 6347 section 4.1.2.7 leaves the others alone).
                if isinstance(e, SSL.ZeroReturnError) or ssl.get_shutdown() & SSL.RECEIVED_SHUTDOWN:
                    raise ConnectionError from None
                return
            if self._data_receiver is not None and self._state == State.CONNECTED:
                await self._data_receiver._handle_data(data)
            await self.share.rest()

    async def _write_ssl(self) -> None:
        assert self._ssl is not None
        flight = b""
        with contextlib.suppress(SSL.Error):  # it is empty
            while True:
                flight += self._ssl.bio_read(_BIO_BYTES)
        for datagram in flights.datagrams(flight):
            await self._transport._send(datagram)

    def _validate_peer_identity(self, remoteParameters: RTCDtlsParameters) -> None:
        assert self._ssl is not None
        certificate = self._ssl.get_peer_certificate(as_cryptography=True)
        promised = [(f.algorithm, f.value) for f in remoteParameters.fingerprints]
        if certificate is None or not fingerprints.is_promised(certificate, promised):
            self._set_state(State.FAILED)
