"""Moves of a call in memory: its session leaves as bytes, and another takes it up. And a record of datagrams, with the
proof that no number was used twice with one key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from session_run import Call

from rtc.dtls import records
from rtc.dtls.srtp import PROFILES
from rtc.ice.lite import Path
from rtc.pacer import Pacer
from rtc.rtp import packet as rtp
from runtime.config import Agents
from transceiver import state
from transceiver.agents import Base
from transceiver.backlog import Backlog
from transceiver.realtime.protocol import Realtime
from transceiver.records.files import Records
from transceiver.session import Session
from transceiver.state import SessionState
from transceiver.talk.talk import Talk
from transceiver.talk.watchers import Send
from transceiver.transport import Transport
from wire.ufrag import call_id

_ROLL_OVER = 1 << 16


class Sent:
    """The datagrams of one session. SRTP by SSRC and extended sequence number, SRTCP by SSRC and index, DTLS records
    of epoch 1 by sequence number, and by the explicit nonce of AES-GCM: each is one datagram, or the same again."""

    def __init__(self, profile: bytes) -> None:
        self._index_at = PROFILES[profile].srtcp_index
        self.known: dict[tuple[object, ...], bytes] = {}
        self._highest: dict[bytes, int] = {}

    def add(self, datagram: bytes) -> None:
        """Takes a datagram. Raises AssertionError where it has a number of another one's."""
        for number, sealed in self._numbers(datagram):
            assert self.known.setdefault(number, sealed) == sealed, f"{number} is used twice"

    def _numbers(self, datagram: bytes) -> list[tuple[tuple[object, ...], bytes]]:
        if 20 <= datagram[0] <= 63:
            found: list[tuple[tuple[object, ...], bytes]] = []
            for header in records.headers(datagram):
                if header.epoch:
                    sealed = datagram[header.start : header.end]
                    at = records.HEADER_BYTES
                    found.append((("dtls", header.sequence), sealed))
                    found.append((("nonce", sealed[at : at + 8]), sealed))
            return found
        if not rtp.is_rtp_or_rtcp(datagram):
            return []
        if rtp.is_rtcp(datagram):
            at = len(datagram) + self._index_at
            index = int.from_bytes(datagram[at : at + 4], "big") & 0x7FFF_FFFF
            return [(("srtcp", datagram[4:8], index), datagram)]
        ssrc, sequence = datagram[8:12], int.from_bytes(datagram[2:4], "big")
        highest = self._highest.get(ssrc, sequence)
        extended = highest + (sequence - highest + _ROLL_OVER // 2) % _ROLL_OVER - _ROLL_OVER // 2
        self._highest[ssrc] = max(extended, highest)
        return [(("srtp", ssrc, extended), datagram)]

    def count(self, kind: str) -> int:
        """How many numbers of that kind were used."""
        return sum(number[0] == kind for number in self.known)


class MovingCall(Call):
    """A call whose sessions are many. ``sent`` has all datagrams that they sent, ``frames_at`` when each of RTP was,
    ``watched`` what an edge process that watches was told."""

    def __init__(self, agent: type[Base], records: Records | None = None) -> None:
        super().__init__(agent, records=records)
        self.agent, self.records = agent, records
        self.sent: list[bytes] = []
        self.frames_at: list[float] = []
        self.watched: list[str] = []
        self.data = b""  # that a session left with last

    def send(self, transport: Transport, path: Path, datagram: bytes) -> None:
        assert transport is self.session.transport, "one that is away sends"
        self.sent.append(datagram)
        if datagram[0] >> 6 == 2 and not 64 <= datagram[1] & 127 < 96:
            self.frames_at.append(time.monotonic())
        super().send(transport, path, datagram)

    def watch(self, who: bytes) -> Send:
        return lambda text, event, asked: self.watched.append(text)

    def follow(self, talk: Talk, found: SessionState) -> None:
        """Has a talk, which is to be taken up from that state, be traced where the test wants it."""

    def taken_up(self, found: SessionState) -> Session:
        """Another session, of that state."""
        protocol = Realtime.taken_up(found.talk.protocol)
        agent = found.talk.agent, self.agent
        talk = Talk(
            call_id(found.ufrag), agent, protocol, config=Agents(), records=self.records, rate_hz=found.talk.rate_hz
        )
        self.follow(talk, found)
        return Session.take_up(
            found,
            talk,
            outbound=self,
            pacer=Pacer(),
            backlog=Backlog(),
            on_end=self.ended.append,
            watch=self.watch,
        )

    async def left(self) -> SessionState:
        """The session leaves, through bytes."""
        await self.session.hold()
        self.data = state.encoded(self.session.leave())
        return state.decoded(self.data)

    async def move(self) -> None:
        """One session leaves, and another goes on."""
        former = self.session
        other = self.taken_up(await self.left())
        self.session = other
        former.forsake()
        other.stay()
        await former.closed()

    def numbers(self) -> Sent:
        """What was sent, by its numbers. Raises AssertionError where one was used twice."""
        sent = Sent(state.decoded(self.data).transport.secure.dtls.srtp.profile)
        for datagram in self.sent:
            sent.add(datagram)
        return sent

    def longest_gap_s(self) -> float:
        """Between two frames."""
        return max(after - before for before, after in zip(self.frames_at, self.frames_at[1:], strict=False))


@asynccontextmanager
async def a_moving_call(agent: type[Base], records: Records | None = None) -> AsyncIterator[MovingCall]:
    call = MovingCall(agent, records)
    try:
        await call.connect()
        yield call
    finally:
        await call.close()
        await asyncio.sleep(0)
