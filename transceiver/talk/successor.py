"""An agent that is warmed beside the one that a talk has, to take over from it. Whatever it says waits until then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from transceiver.agents import Base, Item, Line, Settings
from transceiver.talk.agent_host import NotReady, host
from transceiver.talk.protocol import Partner

__all__ = ["Prepare", "Successor"]


Prepare = Callable[[Partner, object], tuple[Settings, list[Item]]]


class Successor:
    """The agent ``agent``, a name and a class, which ``prepare(agent, state)`` tells what there has been; ``state`` is
    that of the agent which has the seat, or None. The call's sound has ``rate_hz``. It is to be given the seat or to be
    dropped. Raises NotReady."""

    def __init__(
        self, agent: tuple[str, type[Base]], line: Line, prepare: Prepare, state: object, rate_hz: int
    ) -> None:
        self.name, self.kind = agent
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        try:
            self.host = host(self.kind, line, self._fail, self.name, muted=True, rate_hz=rate_hz)
        except Exception as e:
            raise NotReady(repr(e)) from e
        self._told = prepare(self.host, state)

    @property
    def known(self) -> set[str]:
        """The ids of the items that it was told."""
        return {item.id for item in self._told[1]}

    @property
    def passes_packets(self) -> bool:
        """Whether it takes and says packets as they are, instead of PCM."""
        return self.kind.hears == "opus"

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
