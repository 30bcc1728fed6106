"""A transceiver that is never content with where its calls are: ``python moving_transceiver.py CONFIG``. Every 300 ms
each connected session leaves as bytes, and another takes its place; it writes a line about it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from runtime import config
from transceiver import process, state
from transceiver.server import Transceiver
from transceiver.session import Session

EVERY_S = 0.3


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
            for call in [call for call in self._calls.values() if call.transport.connected]:
                await self._move(call)

    async def _move(self, former: Session) -> None:
        await former.hold()
        if former.ended:
            return
        data = state.encoded(former.leave())
        call = self.take_up(state.decoded(data))
        self._calls[call.ufrag.encode()] = call
        self._routing.replace(former.transport, call.transport)
        former.forsake()
        call.stay()
        self._log.info("moved", bytes=len(data))


process.Transceiver = Moving  # type: ignore[misc]
process.run(config.load(Path(sys.argv[1])))
