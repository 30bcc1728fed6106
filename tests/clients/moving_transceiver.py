"""A transceiver that is never content with where its calls are: ``python moving_transceiver.py CONFIG``. Every 300 ms
each connected session leaves as bytes, and another takes its place; it writes a line about it, with the time from the
last frame before to the first after it, and one with "error" where a number was used twice with one key."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))

from session_moves import Sent

from rtc.ice.lite import Path as IcePath
from rtc.rtp import packet as rtp
from runtime import config
from transceiver import process, server, state
from transceiver.links.routing import Routing, Transport
from transceiver.server import Transceiver
from transceiver.session import Session

EVERY_S = 0.3


class Watched(Routing):
    """A routing that looks at all that calls send."""

    def __init__(self) -> None:
        super().__init__()
        self.unread: dict[str, list[bytes]] = {}
        self.sent: dict[str, Sent] = {}
        self.frame_at: dict[str, float] = {}
        self.gap_s: dict[str, float] = {}

    def send(self, transport: Transport, path: IcePath, datagram: bytes) -> None:
        call = transport.ufrag
        self.unread.setdefault(call, []).append(datagram)
        if rtp.is_rtp_or_rtcp(datagram) and not rtp.is_rtcp(datagram):
            now = time.monotonic()
            if call in self.frame_at:
                self.gap_s[call] = max(self.gap_s.get(call, 0.0), now - self.frame_at[call])
            self.frame_at[call] = now
        super().send(transport, path, datagram)

    def read(self, call: str, profile: bytes) -> int:
        """How many numbers of SRTP have been used so far. Raises AssertionError where one was used twice."""
        sent = self.sent.setdefault(call, Sent(profile))
        for datagram in self.unread.pop(call, []):
            sent.add(datagram)
        return sent.count("srtp")


class Moving(Transceiver):
    """The transceiver with that habit."""

    async def sweep_forever(self) -> None:
        moving = asyncio.create_task(self._move_forever())
        try:
            await super().sweep_forever()
        finally:
            moving.cancel()

    async def _move_forever(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            for call in [call for call in self.held.calls.values() if call.transport.connected]:
                try:
                    await self._move(call)
                except Exception as e:
                    self._log.exception("a move failed", why=repr(e))

    async def _move(self, former: Session) -> None:
        await former.hold()
        if former.ended:
            return
        routing = self._routing
        assert isinstance(routing, Watched)
        gap_s = routing.gap_s.pop(former.ufrag, 0.0)
        began = time.monotonic()
        found = former.leave()
        data = state.encoded(found)
        call = self.take_up(state.decoded(data))
        self.held.put(call)
        routing.arrive(call.transport, routing.depart(former.transport))
        former.forsake()
        call.stay()
        took_ms = round(1000 * (time.monotonic() - began), 2)
        try:
            numbers = routing.read(call.ufrag, found.transport.secure.dtls.srtp.profile)
        except AssertionError as e:
            self._log.error("a number was used twice", why=str(e))
            return
        self._log.info("moved", bytes=len(data), took_ms=took_ms, gap_ms=round(1000 * gap_s, 1), numbers=numbers)


server.Routing = Watched  # type: ignore[misc]
process.Transceiver = Moving  # type: ignore[misc]
process.run(config.load(Path(sys.argv[1])))
