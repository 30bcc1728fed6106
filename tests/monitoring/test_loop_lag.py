"""A loop that is held up says so."""

from __future__ import annotations

import asyncio
import time

from waiting import eventually

from runtime.looplag import LoopLag


async def test_the_worst_of_the_last_second_is_what_held_the_loop_up_most() -> None:
    lag = LoopLag()
    watching = asyncio.create_task(lag.watch())
    assert lag.worst_s == 0.0

    def held_up() -> bool:
        time.sleep(0.2)  # the loop can do nothing else meanwhile
        return lag.worst_s >= 0.1

    await eventually(held_up)
    watching.cancel()
