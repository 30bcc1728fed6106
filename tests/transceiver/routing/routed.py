"""Calls behind the real routing: real sessions, their callers, and a link that records what it is given."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np
import zmq
from waiting import eventually

from caller.offer import Answer, Offer, parse_answer
from rtc.dtls.secure import Certificate, SecureTransport
from rtc.ice.controlling import Controlling, Credentials
from rtc.pacer import Pacer
from rtc.rtp import packet as rtp
from rtc.sdp import answer as sdp
from runtime.config import Agents
from transceiver.agents import Base, echo
from transceiver.backlog import Backlog
from transceiver.handover.leaving import Leaving
from transceiver.handover.taking import Taking
from transceiver.links.link import Link
from transceiver.links.routing import Routing
from transceiver.realtime.protocol import Realtime
from transceiver.refusing import RequestError
from transceiver.session import Session
from transceiver.state import SessionState, StateError
from transceiver.talk.talk import Talk
from transceiver.talk.understudy import Understudy
from wire import address, link, messages, stun, ufrag
from wire.control import Control
from wire.frames import Data
from wire.handoffs import Warm
from wire.keys import ClusterKeys
from wire.messages import Message, PathDown, PathUp, Request

KEYS = ClusterKeys({1: bytes(range(16))}, 1, bytes(32))
SOURCE, EDGE = b"@1.abcd", b"edge/signaling"
WORKER = b"edge/worker-0"
HOME = address.pack("192.0.2.1", 40000)
ELSEWHERE = address.pack("198.51.100.7", 50000)
VICTIM = address.pack("203.0.113.9", 9)


class Written:
    """A link that writes down: ``sent`` to each address, and the control messages."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, bytes]] = []
        self.told: list[tuple[str, bytes]] = []

    def send(self, worker: bytes, to: bytes, datagram: bytes) -> None:
        self.sent.append((to, datagram))

    def control(self, peer: bytes, message: PathUp | PathDown) -> None:
        self.told.append((str(message.__struct_config__.tag), message.address))

    def to(self, where: bytes) -> list[bytes]:
        return [datagram for to, datagram in self.sent if to == where]


class House:
    """A transceiver without a socket."""

    def __init__(self) -> None:
        self.link = Written()
        self.routing = Routing()
        self.routing.link = cast(Link, self.link)
        self.backlog, self.pacer = Backlog(), Pacer()
        self.certificate = Certificate.generateCertificate()
        self.received: Counter[bytes] = Counter()

    def deliver(self, source: bytes, *datagrams: bytes, worker: bytes = WORKER) -> None:
        self.received[source] += sum(map(len, datagrams))
        lengths = np.array([len(each) for each in datagrams], np.uint16)
        self.routing.on_data(worker, Data(source * len(datagrams), lengths, b"".join(datagrams)))


class Caller:
    """One who places a call, and is at ``where``."""

    def __init__(
        self,
        house: House,
        where: bytes,
        *,
        ssrc: int | None = None,
        setup: str = "actpass",
        agent: tuple[str, type[Base]] = ("echo", echo.Agent),
    ) -> None:
        self.house, self.where, self.sequence = house, where, 0
        certificate = Certificate.generateCertificate()
        self.offer = Offer(certificate.fingerprint)
        text = self.offer.sdp().replace("a=setup:actpass", f"a=setup:{setup}")
        self.ssrc = self.offer.ssrc if ssrc is None else ssrc
        self.session = Session(
            sdp.parse(text.replace(str(self.offer.ssrc), str(self.ssrc))),
            ufrag.seal(1, 1, bytes(16)),
            Talk("rtc_1", agent, Realtime("rtc_1", agent[0]), config=Agents()),
            outbound=house.routing,
            pacer=house.pacer,
            backlog=house.backlog,
            certificate=house.certificate,
            on_end=lambda session: house.routing.remove(session.transport),
        )
        self.answer: Answer = parse_answer(self.session.answer(house.certificate, "192.0.2.100", 3478))
        house.routing.add(self.session.transport)
        offer, answer = self.offer, self.answer
        self.ice = Controlling(Credentials(offer.ufrag, offer.password, answer.ufrag, answer.password))
        self.secure = SecureTransport(
            lambda datagram: house.deliver(self.where, datagram),
            certificate,
            client=not self.answer.server_is_dtls_client,
        )
        self.heard: list[rtp.Packet] = []
        self._read = 0
        self.loses = 0  # so many DTLS datagrams on their way to it

    def check(self, where: bytes | None = None, *, nominate: bool = True) -> bytes:
        """Sends a check from ``where``, and returns it."""
        name, key = f"{self.answer.ufrag}:{self.offer.ufrag}".encode(), self.answer.password.encode()
        said = stun.binding_request(name, key, tie_breaker=1, nominate=nominate)
        self.house.deliver(where or self.where, said)
        return said

    def speak(self) -> None:
        packet = rtp.build(self.answer.payload_type, False, self.sequence, 960 * self.sequence, self.ssrc, bytes(60))
        self.sequence += 1
        self.house.deliver(self.where, self.secure.protect(packet))

    async def read(self) -> None:
        """Takes, again and again, what came to its present address."""
        while True:
            for datagram in self.house.link.to(self.where)[self._read :]:
                self._read += 1
                if datagram[0] <= 3:
                    reply = self.ice.receive(datagram, self.where, time.monotonic())
                    if reply is not None:
                        self.house.deliver(self.where, reply)
                elif 20 <= datagram[0] <= 63 and self.loses:
                    self.loses -= 1
                elif 20 <= datagram[0] <= 63:
                    self.secure.feed(datagram)
                elif not rtp.is_rtcp(datagram):
                    plain = self.secure.unprotect(datagram)
                    if plain is not None and (packet := rtp.parse(plain)) is not None:
                        self.heard.append(packet)
            await asyncio.sleep(0.002)

    async def echoed(self) -> None:
        """Waits until what it says comes back."""
        heard = len(self.heard)
        self.speak()
        await eventually(lambda: len(self.heard) > heard)

    def moves(self, where: bytes) -> None:
        self.where, self._read = where, len(self.house.link.to(where))


@asynccontextmanager
async def callers(*all_: Caller) -> AsyncIterator[None]:
    """Callers that read, and that are gone in the end."""
    reading = [asyncio.create_task(each.read()) for each in all_]
    try:
        yield
    finally:
        for each in all_:
            await each.secure.close()
            each.session.end("shutdown")
            await each.session.closed()
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


async def connect(caller: Caller) -> None:
    caller.check()
    await caller.secure.handshake(caller.answer.fingerprints)
    await eventually(lambda: not caller.session.half_open)


class Told(Written):
    """A link that writes down every control message, and tells of two listeners."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[bytes, Message]] = []

    def control(self, peer: bytes, message: Any) -> None:
        self.messages.append((peer, message))
        if isinstance(message, messages.PathUp | messages.PathDown):
            super().control(peer, message)

    def listeners(self, least: int) -> list[bytes]:
        return [WORKER, EDGE]


class Source(House):
    """The transceiver that has the call."""

    def __init__(self) -> None:
        super().__init__()
        self.link = self.told = Told()
        self.routing.link = cast(Link, self.link)
        self.gone: list[Session] = []
        self.leaving = Leaving(SOURCE, lambda: KEYS, self.routing, cast(Link, self.link), self.gone.append)


class Target:
    """The transceiver that takes it; ``full`` refuses. It notes what it was asked in ``asked``."""

    def __init__(self, endpoint: str) -> None:
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.routing = Routing()
        self.backlog = Backlog()
        self.link = Link(link.router(self.context, endpoint, KEYS), self.routing.on_data, self._on_control)
        self.routing.link = self.link
        self.sessions: list[Session] = []
        self.full = False
        self.asked: list[str] = []
        self.watched: list[dict[str, Any]] = []
        self.profile = b""  # of SRTP, as the call's state has it
        self.agents: dict[str, type[Base]] = {"echo": echo.Agent}
        self.taking = Taking(self.routing, self._room, self.take_up, self.sessions.append, self.understudy)
        self.pacer = House().pacer

    def _room(self, agent: str) -> None:
        if self.full:
            raise RequestError("no room", "full")

    def talk(self, found: SessionState, agent: str) -> Talk:
        if agent not in self.agents:
            raise StateError(f"no agent called {agent!r}")
        protocol, rate_hz = Realtime.taken_up(found.talk.protocol), found.talk.rate_hz
        return Talk("rtc_1", (agent, self.agents[agent]), protocol, config=Agents(), rate_hz=rate_hz)

    def understudy(self, found: SessionState, agent: str) -> Understudy:
        return Understudy(self.talk(found, agent), found.talk, found.parts)

    def take_up(self, found: SessionState, understudy: Understudy | None = None) -> Session:
        self.profile = found.transport.secure.dtls.srtp.profile
        talk = self.talk(found, found.talk.agent)
        if understudy is not None:
            understudy.talk.protocol, talk = talk.protocol, understudy.talk
        return Session.take_up(
            found,
            talk,
            outbound=self.routing,
            pacer=self.pacer,
            backlog=self.backlog,
            on_end=lambda session: self.routing.remove(session.transport),
            watch=lambda who: lambda text, event, asked: self.watched.append(json.loads(text)),
        )

    def _on_control(self, peer: bytes, control: Control[Any]) -> None:
        message = control.message
        self.asked.append(message.__struct_config__.tag)
        if isinstance(message, messages.GoOn):
            self.taking.go_on(peer, message)
        elif isinstance(message, messages.Dropped):
            self.taking.dropped(peer, message)
        elif isinstance(message, Warm):
            try:
                self.taking.warm(peer, message, lambda reply: self.link.control(peer, reply, control.request))
            except RequestError as e:
                self.link.control(peer, messages.Refused(code=e.code, message=str(e)), control.request)
        elif isinstance(message, Request):
            taking = self.taking
            handlers: dict[type, Any] = {
                messages.Reserve: taking.reserve,
                messages.Part: taking.part,
                messages.Take: taking.take,
            }
            try:
                reply: Message = handlers[type(message)](peer, message)
            except RequestError as e:
                reply = messages.Refused(code=e.code, message=str(e))
            self.link.control(peer, reply, control.request)

    async def close(self) -> None:
        self.taking.close()
        await self.taking.closed()
        for session in self.sessions:
            session.end("shutdown")
            await session.closed()
        self.dies()

    def dies(self) -> None:
        """Closes its link without a word."""
        if not self.context.closed:
            self.link.close()
            self.context.destroy(linger=0)
