"""An agent that is warmed beside the one that a talk has, to take over from it. Whatever it says waits until then."""

from __future__ import annotations

import asyncio

from transceiver.agents import Base, Line
from transceiver.talk.agent_host import NotReady, host
from transceiver.talk.protocol import Seat

__all__ = ["Successor"]


class Successor:
    """The agent ``agent``, a name and a class, which is told by ``seat`` what there has been; ``state`` is that of the
    agent which has it, or None. It is to be given the seat or to be dropped. Raises NotReady."""

    def __init__(self, agent: tuple[str, type[Base]], line: Line, seat: Seat, state: object) -> None:
        self.name, self.kind = agent
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        try:
            self.host = host(self.kind, line, self._fail, self.name, muted=True)
        except Exception as e:
            raise NotReady(repr(e)) from e
        self._told = seat.prepare(self.host, state)

    async def ready(self) -> None:
        """Waits until it can take over, which may be never. Raises NotReady."""
        warming = asyncio.ensure_future(self.host.warm(*self._told))
        try:
            await asyncio.wait((warming, self._failed), return_when=asyncio.FIRST_COMPLETED)
            self.check()
            await warming
        finally:
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)

    def check(self) -> None:
        """Raises NotReady where it has failed meanwhile."""
        if self._failed.done():
            raise NotReady(self._failed.result())

    def drop(self) -> None:
        """Ends it: it takes nothing over."""
        self.host.close()

    async def joined(self) -> None:
        """Waits, for a short while, until nothing of one that was dropped runs any more."""
        await self.host.joined()

    def _fail(self, why: str) -> None:
        if not self._failed.done():
            self._failed.set_result(why)
