"""An event loop that knows for how long it had something to do."""

from __future__ import annotations

import asyncio
import time

from runtime.busy import BusySelector, run


def test_what_a_callback_takes_is_busy_and_a_sleep_is_not() -> None:
    took: dict[str, float] = {}

    async def main(selector: BusySelector) -> None:
        await asyncio.sleep(0)
        before = selector.busy_s
        until = time.perf_counter() + 0.05
        while time.perf_counter() < until:
            pass
        took["busy"] = selector.busy_s - before
        took["idle"] = 0.0
        for _ in range(100):  # a machine that has other things to do may take some of it
            before, began = selector.busy_s, time.perf_counter()
            await asyncio.sleep(0.02)
            took["idle"] += time.perf_counter() - began - (selector.busy_s - before)
            if took["idle"] > 0.05:
                break

    run(main)
    assert took["busy"] >= 0.05
    assert took["idle"] > 0.05


def test_a_loop_that_never_waits_is_busy_all_the_time() -> None:
    took: dict[str, float] = {}

    async def main(selector: BusySelector) -> None:
        before, began = selector.busy_s, time.perf_counter()
        for _ in range(200):
            await asyncio.sleep(0)
        took["all"] = time.perf_counter() - began
        took["busy"] = selector.busy_s - before

    run(main)
    assert took["busy"] >= took["all"]
