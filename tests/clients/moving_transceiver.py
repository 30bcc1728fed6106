"""A transceiver that is never content with where its calls are: ``python moving_transceiver.py CONFIG``. Every 300 ms
it exports each connected call's transport to bytes, drops it, and takes it up again, and writes a line about it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from rtc import state
from runtime import config
from transceiver import process
from transceiver.server import Transceiver
from transceiver.session import Session
from transceiver.transport import Transport

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

    async def _move(self, call: Session) -> None:
        former = call.transport
        await former.hold()
        if not former.connected:
            return
        data = state.encoded(former.export())
        transport, channels = Transport.take_up(
            state.decoded(data), call=call, media=call.stream, outbound=self._routing, backlog=self._backlog
        )
        self._routing.replace(former, transport)
        call.adopt(transport, channels)
        self._log.info("moved", bytes=len(data))


process.Transceiver = Moving  # type: ignore[misc]
process.run(config.load(Path(sys.argv[1])))
