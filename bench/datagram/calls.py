"""Calls in memory: sessions behind the transceiver's link and routing, and the callers who speak to them."""

from __future__ import annotations

import asyncio
import time

import zmq

from caller.offer import Offer, parse_answer
from rtc.dtls.secure import Certificate, SecureTransport
from rtc.ice.controlling import Controlling, Credentials
from rtc.pacer import Pacer
from rtc.rtp import packet as rtp
from rtc.sdp import answer as sdp
from runtime.config import Agents
from transceiver.agents import Base
from transceiver.backlog import Backlog
from transceiver.links.link import Link
from transceiver.links.routing import Routing
from transceiver.realtime.protocol import Realtime
from transceiver.session import Session
from transceiver.talk.talk import Talk
from wire import address, frames, link, stun, ufrag
from wire.keys import ClusterKeys

__all__ = ["Call", "House"]

_FRAME_TICKS = 960
_WORKER = b"edge/worker-0"
_CONNECT_S = 30.0
_ENDPOINT = "inproc://transceiver"
_KEYS = ClusterKeys({1: bytes(16)}, 1, bytes(32))


class House:
    """A transceiver without processes, and its callers: ``agent`` answers all of them."""

    def __init__(self, agent: type[Base]) -> None:
        self._context = zmq.Context[zmq.Socket[bytes]]()
        router = link.router(self._context, _ENDPOINT, _KEYS)
        self._worker, self._presence = link.media_dealer(self._context, _ENDPOINT, _WORKER, _KEYS)
        self.routing = Routing()
        self.routing.link = self.link = Link(router, self.routing.on_data, lambda peer, message: None)
        self.pacer, self.backlog = Pacer(), Backlog()
        self.certificate = Certificate.generateCertificate()
        self.agent = agent
        self.calls: list[Call] = []

    async def call(self, count: int) -> None:
        """Connects so many calls, one after the other: a link holds few messages."""
        certificate = Certificate.generateCertificate()
        self.calls = [Call(self, number, certificate) for number in range(count)]
        for call in self.calls:
            async with asyncio.timeout(_CONNECT_S):
                handshake = asyncio.ensure_future(call.connect())
                while not call.session.transport.connected:
                    self.deliver()
                    await asyncio.sleep(0)
                await handshake

    def say(self, message: bytes) -> None:
        """Sends a message of the worker's."""
        self._worker.send(message, zmq.NOBLOCK)

    def deliver(self) -> int:
        """Gives each caller what was sent to it, but for media. Returns how many datagrams of that there were."""
        media = 0
        while self._worker.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            message = self._worker.recv(zmq.NOBLOCK)
            if not message.startswith(frames.HEADS[message[1]]):
                continue
            for client, datagram in frames.read_data(message).datagrams():
                if rtp.is_rtp_or_rtcp(datagram):
                    media += 1
                else:
                    self.calls[address.unpack(client)[1] - 1].take(datagram)
        return media

    def spoken(self, payload: bytes, batch: int) -> list[bytes]:
        """A worker's messages with the next packet of every caller, ``batch`` of them in each."""
        packets = [(call.path, call.spoken(payload)) for call in self.calls]
        return [frames.pack_batch(packets[at : at + batch]) for at in range(0, len(packets), batch)]

    async def close(self) -> None:
        """Ends all calls."""
        for call in self.calls:
            call.session.end("shutdown")
        await asyncio.gather(*(call.session.closed() for call in self.calls))
        self.link.close()
        self._presence.close()
        self._context.destroy(linger=0)


class Call:
    """A session of the house's, and its caller."""

    def __init__(self, house: House, number: int, certificate: Certificate) -> None:
        self.path = address.pack("192.0.2.1", number + 1)
        self.sequence = 0
        self._house = house
        self.offer = Offer(certificate.fingerprint)
        name = ufrag.seal(1, 1, bytes(16))
        call = ufrag.call_id(name)
        self.session = Session(
            sdp.parse(self.offer.sdp()),
            name,
            Talk(call, ("agent", house.agent), Realtime(call, "agent"), config=Agents.model_validate({})),
            outbound=house.routing,
            pacer=house.pacer,
            backlog=house.backlog,
            certificate=house.certificate,
            on_end=lambda session: house.routing.remove(session.transport),
        )
        house.routing.add(self.session.transport)
        self.answer = answer = parse_answer(self.session.answer(house.certificate, "192.0.2.100", 3478))
        offer = self.offer
        self._ice = Controlling(Credentials(offer.ufrag, offer.password, answer.ufrag, answer.password))
        self.secure = SecureTransport(self._send, certificate, client=not answer.server_is_dtls_client)

    def _send(self, datagram: bytes) -> None:
        self._house.say(frames.pack_batch([(self.path, datagram)]))

    def take(self, datagram: bytes) -> None:
        """Takes what is STUN or DTLS."""
        if datagram[0] > 3:
            self.secure.feed(datagram)
        elif reply := self._ice.receive(datagram, self.path, time.monotonic()):
            self._send(reply)

    async def connect(self) -> None:
        """Checks, and shakes hands."""
        name, key = f"{self.answer.ufrag}:{self.offer.ufrag}".encode(), self.answer.password.encode()
        self._send(stun.binding_request(name, key, tie_breaker=1, nominate=True))
        await self.secure.handshake(self.answer.fingerprints)

    def spoken(self, payload: bytes) -> bytes:
        """The caller's next packet, as it leaves it."""
        self.sequence += 1
        timestamp = _FRAME_TICKS * self.sequence
        packet = rtp.build(self.answer.payload_type, False, self.sequence, timestamp, self.offer.ssrc, payload)
        return self.secure.protect(packet)
