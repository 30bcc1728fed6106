"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

DEADLINE_S = 60.0


def until(condition: Callable[[], object]) -> None:
    """Returns when ``condition()`` is true; fails after a minute, which no healthy machine needs."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {condition}"
        time.sleep(0.02)


async def eventually(condition: Callable[[], object]) -> None:
    """The same from a coroutine."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {condition}"
        await asyncio.sleep(0.02)
