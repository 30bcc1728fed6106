"""A real session and a caller, both in memory: the edges between them are a list of what was sent."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal

from aiortc import RTCDataChannel
from aiortc.rtcdatachannel import RTCDataChannelParameters
from aiortc.rtp import RtcpPacket, RtcpRrPacket, RtcpSrPacket

from caller.offer import Offer, parse_answer
from rtc.codecs.opus import Encoder
from rtc.dtls.secure import Certificate, SecureTransport
from rtc.ice.lite import Path
from rtc.pacer import Pacer
from rtc.rtp import packet as rtp
from rtc.sdp import answer as sdp
from runtime.config import Agents
from transceiver.agents import Base, Line
from transceiver.backlog import Backlog
from transceiver.realtime.protocol import Realtime
from transceiver.records.files import Records
from transceiver.session import Session
from transceiver.talk.talk import Talk
from transceiver.transport import Transport
from wire import address, stun, ufrag

DEADLINE_S = 30
HOME = Path(b"edge", address.pack("192.0.2.1", 40000))
ELSEWHERE = Path(b"edge", address.pack("198.51.100.7", 50000))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)


class Recorder(Base):
    """An agent that writes down what happens to it."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.happened: list[Any] = []
        Recorder.last = self

    def heard(self, pcm: bytes, speaking: bool) -> None:
        self.happened.append(("heard", len(pcm)))

    def dtmf(self, digit: str) -> None:
        self.happened.append(("dtmf", digit))

    def event(self, event: dict[str, Any]) -> None:
        self.happened.append(event)

    def close(self) -> None:
        self.happened.append("close")

    last: ClassVar[Recorder]


class OpusRecorder(Recorder):
    hears: ClassVar[Literal["pcm", "opus"]] = "opus"

    def heard_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        self.happened.append(payload)


def a_talk(agent: type[Base], sealed: str, records: Records | None = None) -> Talk:
    """What a session with this agent is about."""
    call = ufrag.call_id(sealed)
    return Talk(call, ("agent", agent), Realtime(call, "agent"), config=Agents(), records=records)


class Call:
    """The session under test, as its ``Outbound``, and the caller at the other end."""

    def __init__(
        self,
        agent: type[Base],
        amend: Callable[[str], str] = str,
        dcid: int | None = None,
        records: Records | None = None,
    ) -> None:
        self.log: list[tuple[str, Path]] = []
        self.rtp: list[rtp.Packet] = []
        self.reports = 0
        self.rtcp: list[RtcpPacket] = []
        self.datagrams: list[bytes] = []
        self.events: list[dict[str, Any]] = []
        self.ended: list[Session] = []
        self.sequence = 0
        server_certificate, certificate = Certificate.generateCertificate(), Certificate.generateCertificate()
        self.offer = Offer(certificate.fingerprint)
        sealed = ufrag.seal(1, 1, bytes(16))
        self.session = Session(
            sdp.parse(amend(self.offer.sdp())),
            sealed,
            a_talk(agent, sealed, records),
            outbound=self,
            pacer=Pacer(),
            backlog=Backlog(),
            certificate=server_certificate,
            on_end=self.ended.append,
            dcid=dcid,
        )
        text = self.session.answer(server_certificate, "192.0.2.100", 3478)
        # Our caller reads answers with Opus alone.
        self.answer = parse_answer(text.replace("PCMU/8000", "opus/48000/2"))
        self.path = HOME
        self.secure = SecureTransport(
            lambda datagram: self.to_session(datagram), certificate, client=not self.answer.server_is_dtls_client
        )
        self.channel: RTCDataChannel | None = None

    # What the session asks of the link.

    def send(self, transport: Transport, path: Path, datagram: bytes) -> None:
        self.log.append(("send", path))
        asyncio.get_running_loop().call_soon(self._received, datagram)

    def speaks(self, transport: Transport) -> None:
        pass

    def connected(self, transport: Transport) -> None:
        pass

    def path_down(self, transport: Transport, path: Path) -> None:
        self.log.append(("down", path))

    # The caller.

    def _received(self, datagram: bytes) -> None:
        if datagram[0] <= 3:
            return
        if 20 <= datagram[0] <= 63:
            self.secure.feed(datagram)
        elif not self.secure.connected:
            pass
        elif rtp.is_rtcp(datagram):
            compound = self.secure.unprotect_rtcp(datagram)
            assert compound is not None
            packets = RtcpPacket.parse(compound)
            self.rtcp += packets
            self.reports += isinstance(packets[0], RtcpSrPacket | RtcpRrPacket)
        else:
            self.datagrams.append(datagram)
            plain = self.secure.unprotect(datagram)
            if plain is None and datagram in self.datagrams[:-1]:
                return  # sent again, and known already
            packet = rtp.parse(plain) if plain else None
            assert packet is not None
            self.rtp.append(packet)

    def to_session(self, datagram: bytes) -> None:
        take = self.session.transport.media if rtp.is_rtp_or_rtcp(datagram) else self.session.transport.dtls
        asyncio.get_running_loop().call_soon(take, datagram)

    def check(self, path: Path | None = None, *, nominate: bool = True, password: str | None = None) -> bytes | None:
        """One STUN check and its response."""
        request = stun.binding_request(
            f"{self.answer.ufrag}:{self.offer.ufrag}".encode(),
            (password or self.answer.password).encode(),
            tie_breaker=1,
            nominate=nominate,
        )
        message = stun.parse(request)
        assert message is not None
        response = self.session.transport.check(message, path or self.path)
        if response is not None:
            self.session.transport.connect()
        return response

    def answer_probe(self, path: Path) -> None:
        """The session checks ``path``, and is answered."""
        probe = stun.parse(self.session.transport.ice.probe(path, time.monotonic()) or b"")
        assert probe is not None
        response = stun.parse(stun.binding_response(probe, path.address, self.offer.password.encode()))
        assert response is not None
        assert self.session.transport.ice.proved_by(response, path, time.monotonic())

    def speak(self, payload: bytes, payload_type: int | None = None) -> None:
        pt = self.answer.payload_type if payload_type is None else payload_type
        packet = rtp.build(pt, False, self.sequence, 960 * self.sequence, self.offer.ssrc, payload)
        self.sequence += 1
        self.session.transport.media(self.secure.protect(packet), time.monotonic())

    async def connect(self) -> None:
        assert self.check() is not None
        async with asyncio.timeout(DEADLINE_S):
            await self.secure.handshake(self.answer.fingerprints)
        await until(lambda: not self.session.half_open)

    async def open_channel(self, label: str = "oai-events", **parameters: Any) -> RTCDataChannel:
        """Another one, where there is one already: ``events`` has what comes on any of them."""
        assert self.answer.sctp_port is not None
        if self.secure.sctp is None:
            await self.secure.open_sctp(self.answer.sctp_port, self.answer.max_message_bytes, lambda channel: None)
        assert self.secure.sctp is not None
        channel = RTCDataChannel(self.secure.sctp, RTCDataChannelParameters(label=label, **parameters))
        channel.on("message", lambda message: self.events.append(json.loads(message)))
        self.channel = channel
        await until(lambda: channel.readyState != "connecting")
        return channel

    async def close(self) -> None:
        await self.secure.close()
        self.session.end("shutdown")
        await self.session.closed()
        await asyncio.sleep(0)


@asynccontextmanager
async def a_call(
    agent: type[Base] = Recorder,
    *,
    connected: bool = True,
    amend: Callable[[str], str] = str,
    dcid: int | None = None,
    records: Records | None = None,
) -> AsyncIterator[Call]:
    call = Call(agent, amend, dcid, records)
    try:
        if connected:
            await call.connect()
        yield call
    finally:
        await call.close()


def voice(frames: int) -> list[bytes]:
    """That many different Opus packets of something loud."""
    encoder, rng = Encoder(24000), random.Random(1)
    return [encoder.encode(b"".join(rng.randrange(-9000, 9000).to_bytes(2, "little", signed=True) for _ in range(480)))
            for _ in range(frames)]  # fmt: skip


def gained(before: Counter[str], now: Counter[str]) -> dict[str, int]:
    return {name: count - before[name] for name, count in now.items() if count != before[name]}


class Raises(OpusRecorder):
    def heard_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        raise RuntimeError("an agent's own trouble")


async def ends_with(call: Call, reason: str) -> None:
    await until(lambda: call.ended)
    assert call.ended == [call.session]
    assert call.session.ended == reason


def of_type(call: Call, type_: str) -> list[dict[str, Any]]:
    return [event for event in call.events if event["type"] == type_]


class Slow(Base):
    runs: ClassVar[Literal["loop", "thread"]] = "thread"

    def event(self, event: dict[str, Any]) -> None:
        raise RuntimeError("its own trouble")
