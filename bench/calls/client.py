"""One call of the load: offer, ICE and DTLS on a plain UDP socket; its media is sent and read by whoever owns it.

Until the media begins, asyncio reads the socket; ``release`` ends that. What comes after is at the load's pace.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from dataclasses import dataclass

import aiohttp
from aiortc import RTCDataChannel
from aiortc.rtcdatachannel import RTCDataChannelParameters

from bench.calls.offers import OFFERS
from caller.offer import Answer, Offer, parse_answer
from rtc.dtls.secure import Certificate, SecureTransport
from rtc.ice.controlling import Controlling, Credentials
from wire import address

__all__ = ["Client", "Place"]

SO_TIMESTAMPNS = 35
PAYLOAD_TYPE = 111
_SDP = """\
v=0
o=- {session} 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE {mids}
m=audio {port} UDP/TLS/RTP/SAVPF 111
c=IN IP4 {host}
a=rtcp:9 IN IP4 0.0.0.0
{transport}
a=mid:0
a=sendrecv
a=msid:bench audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
{feedback}a=ssrc:{ssrc} cname:bench
"""
_CHANNEL = """\
m=application {port} UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 {host}
{transport}
a=mid:1
a=sctp-port:5000
a=max-message-size:65536
"""
_TRANSPORT = """\
a=ice-ufrag:{ufrag}
a=ice-pwd:{password}
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a=candidate:1 1 udp 2130706431 {host} {port} typ host
a=end-of-candidates"""


@dataclass(frozen=True)
class Place:
    """The settings that all calls of a load share: the server's ``protocol`` and what its offers need, the local
    address, one certificate. ``channel`` is for servers that wait for a data channel before they send."""

    http: aiohttp.ClientSession
    protocol: str
    where: dict[str, str]
    host: str
    certificate: Certificate
    channel: bool = False
    timeout_s: float = 20.0


class Client:
    """One call. ``call`` sets it up; ``secure`` has the SRTP keys then, and ``setup_s`` the time from the POST
    to them. ``phase`` is what it waits for, or waited for last: ``http``, ``ice``, ``dtls`` or ``channel``."""

    def __init__(self, place: Place, *, nack: bool = False) -> None:
        self._place = place
        self._nack = nack
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.bind((place.host, 0))
        self._connected = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.ssrc = secrets.randbits(31)
        self.setup_s = 0.0
        self.phase = "http"
        self.secure: SecureTransport
        self.ice: Controlling
        self.answer: Answer
        self._source = b""

    async def call(self) -> None:
        """Sets the call up. It raises whatever went wrong, TimeoutError among it."""
        place = self._place
        loop = asyncio.get_running_loop()
        offer = Offer(place.certificate.fingerprint)
        began = loop.time()
        async with asyncio.timeout(place.timeout_s):
            sdp = await OFFERS[place.protocol](place.http, place.where, self._offer(offer))
            self._take(offer, _only(sdp, place.where["host"]))
            self.phase = "ice"
            loop.add_reader(self.socket, self._read)
            self._check()
            await self._connected.wait()
            self.phase = "dtls"
            await self.secure.handshake(self.answer.fingerprints)
            self.setup_s = loop.time() - began
            if place.channel:
                self.phase = "channel"
                await self._open_channel()

    def release(self) -> None:
        """Leaves the socket, from now on, to the caller of this to read and to check."""
        asyncio.get_running_loop().remove_reader(self.socket)
        if self._timer is not None:
            self._timer.cancel()

    async def close(self) -> None:
        """Says goodbye."""
        if hasattr(self, "secure"):
            self.release()
            await self.secure.close()
        self.socket.close()

    def stun(self, datagram: bytes, now: float) -> None:
        """Answers a check, or takes the response to one of ours."""
        if (response := self.ice.receive(datagram, self._source, now)) is not None:
            self._send(response)

    def check(self, now: float) -> float:
        """Sends a check if one is due. Returns when to ask again."""
        check, due = self.ice.poll(now)
        if check is not None:
            self._send(check)
        return due

    def _offer(self, offer: Offer) -> str:
        host, port = self.socket.getsockname()
        transport = _TRANSPORT.format(
            ufrag=offer.ufrag, password=offer.password, fingerprint=offer.fingerprint, host=host, port=port
        )
        sdp = _SDP.format(
            session=secrets.randbits(62),
            mids="0 1" if self._place.channel else "0",
            host=host,
            port=port,
            transport=transport,
            feedback="a=rtcp-fb:111 nack\n" if self._nack else "",
            ssrc=self.ssrc,
        )
        if self._place.channel:
            sdp += _CHANNEL.format(host=host, port=port, transport=transport)
        return sdp.replace("\n", "\r\n")

    def _take(self, offer: Offer, sdp: str) -> None:
        answer = self.answer = parse_answer(sdp)
        self._source = address.pack(*answer.address)
        self.socket.connect(answer.address)
        self.ice = Controlling(Credentials(offer.ufrag, offer.password, answer.ufrag, answer.password))
        self.secure = SecureTransport(self._send, self._place.certificate, client=not answer.server_is_dtls_client)

    async def _open_channel(self) -> None:
        assert self.answer.sctp_port is not None, "the server takes no data channel"
        await self.secure.open_sctp(self.answer.sctp_port, self.answer.max_message_bytes, lambda channel: None)
        assert self.secure.sctp is not None
        channel = RTCDataChannel(self.secure.sctp, RTCDataChannelParameters(label="text"))
        opened = asyncio.Event()
        channel.on("open", opened.set)
        await opened.wait()

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(self.check(loop.time()), self._check)

    def _read(self) -> None:
        try:
            datagram = self.socket.recv(2048)
        except (BlockingIOError, ConnectionRefusedError):
            return
        first = datagram[0] if datagram else 255
        if first <= 3:
            self.stun(datagram, asyncio.get_running_loop().time())
            if self.ice.connected_at is not None:
                self._connected.set()
        elif 20 <= first <= 63:
            self.secure.feed(datagram)

    def _send(self, datagram: bytes) -> None:
        # A full buffer or a server that is not there yet: a network loses datagrams too.
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            self.socket.send(datagram)


def _only(sdp: str, host: str) -> str:
    """The answer without candidates on hosts that clients do not reach."""
    lines = (line for line in sdp.splitlines() if not line.startswith("a=candidate:") or f" {host} " in line)
    return "\r\n".join(lines) + "\r\n"
