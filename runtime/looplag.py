"""The lag of an event loop: how late it comes to what is due."""

from __future__ import annotations

import asyncio
from typing import Never

__all__ = ["LoopLag"]

_EVERY_S = 0.05
_LOOKS = 20


class LoopLag:
    """The lag of the loop that runs ``watch``. ``worst_s`` is the worst of the last second that is over."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def watch(self) -> Never:
        """Looks for ever."""
        loop = asyncio.get_running_loop()
        while True:
            worst_s = 0.0
            for _ in range(_LOOKS):
                due = loop.time() + _EVERY_S
                await asyncio.sleep(_EVERY_S)
                worst_s = max(worst_s, loop.time() - due)
            self.worst_s = worst_s
