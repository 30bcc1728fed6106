"""Waiting for an answer, by a process that may itself be too busy to hear it in time."""

from __future__ import annotations

import asyncio
from typing import TypeVar

__all__ = ["heard"]

T = TypeVar("T")

_SLICES = 5


async def heard(answer: asyncio.Future[T], patience_s: float) -> T:
    """What ``answer`` comes to within ``patience_s``. A time in which this loop ran nothing at all counts for a fifth
    of that at most: the answer may be there, and only be waiting to be read. Raises TimeoutError, and what the answer
    raises."""
    for _ in range(_SLICES):
        done, _pending = await asyncio.wait((answer,), timeout=patience_s / _SLICES)
        if done:
            return answer.result()
    raise TimeoutError
