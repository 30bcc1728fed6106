"""The sampling of transceivers: each with a link is asked once a second how it is, and the way there is measured."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Never

from edge.directory import Directory
from edge.links.transceivers import RequestRefused, Transceivers, Unavailable
from wire.messages import Health, HealthReport

__all__ = ["sample"]

_EVERY_S = 1.0


async def sample(transceivers: Transceivers, directory: Directory, every_s: float = _EVERY_S) -> Never:
    """Enters the reports of all that are present and linked in ``directory``, with the round trips to them. One that is
    silent is asked again when the time for its reply is over, and delays no other."""
    asking: dict[int, asyncio.Task[None]] = {}
    try:
        while True:
            asking = {number: task for number, task in asking.items() if not task.done()}
            for number in transceivers.sampled:
                if number not in asking:
                    asking[number] = asyncio.create_task(_ask(transceivers, directory, number))
            await asyncio.sleep(every_s)
    finally:
        for task in asking.values():
            task.cancel()


async def _ask(transceivers: Transceivers, directory: Directory, number: int) -> None:
    asked_at = time.monotonic()

    def reported(reply: HealthReport) -> None:
        if reply.report is not None:
            now = time.monotonic()
            directory.report(reply.report, now, now - asked_at)

    with suppress(RequestRefused, Unavailable):
        await transceivers.ask(number, Health(), reported)
