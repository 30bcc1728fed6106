"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

DEADLINE_S = 60.0
_SOONEST_S, _LATEST_S = 0.01, 0.15
_PART = 0.1  # of the time so far


def until(condition: Callable[[], object]) -> None:
    """Returns when ``condition()`` is true; fails after a minute, which no healthy machine needs."""
    for pause_s in _pauses(condition):
        time.sleep(pause_s)


async def eventually(condition: Callable[[], object]) -> None:
    """The same from a coroutine."""
    for pause_s in _pauses(condition):
        await asyncio.sleep(pause_s)


def _pauses(condition: Callable[[], object]) -> Iterator[float]:
    """The seconds to wait before each further look. Those who have waited long look less often: a look costs
    milliseconds of a core, here and in the process that is asked."""
    begin = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - begin
        assert waited_s < DEADLINE_S, f"never came true: {condition}"
        yield min(max(_SOONEST_S, _PART * waited_s), _LATEST_S)
