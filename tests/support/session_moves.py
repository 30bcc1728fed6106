"""Moves of a call in memory: its session leaves as bytes, and another takes it up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from numbers_once import Sent
from session_run import Call

from rtc.ice.lite import Path
from rtc.pacer import Pacer
from runtime.config import Agents
from transceiver import state
from transceiver.agents import Base
from transceiver.backlog import Backlog
from transceiver.realtime.protocol import Realtime
from transceiver.session import Session
from transceiver.state import SessionState
from transceiver.talk.talk import Talk
from transceiver.talk.watchers import Send
from transceiver.transport import Transport


class MovingCall(Call):
    """A call whose sessions are many. ``sent`` has all datagrams that they sent, ``frames_at`` when each of RTP was,
    ``watched`` what an edge process that watches was told."""

    def __init__(self, agent: type[Base]) -> None:
        super().__init__(agent)
        self.agent = agent
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

    def taken_up(self, found: SessionState) -> Session:
        """Another session, of that state."""
        protocol = Realtime.taken_up(found.talk.protocol)
        talk = Talk("call", (found.talk.agent, self.agent), protocol, config=Agents())
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
async def a_moving_call(agent: type[Base]) -> AsyncIterator[MovingCall]:
    call = MovingCall(agent)
    try:
        await call.connect()
        yield call
    finally:
        await call.close()
        await asyncio.sleep(0)
