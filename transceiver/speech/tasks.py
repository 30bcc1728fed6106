"""The responses that an agent is making: one task each, in the agent's own loop; each can be ended at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from transceiver.agents import Response

__all__ = ["Failure", "Tasks"]


class Failure(Exception):
    """The reason why a response cannot be finished, in words for the client."""


class Tasks:
    """The responses being made. Whatever ends a response's task, the response gets ``done``, ``fail`` or a cancel; it
    never goes on in silence."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, response: Response, make: Callable[[Response], Coroutine[None, None, None]]) -> None:
        """Runs ``make``, which streams into ``response``; it raises Failure with what the client shall read."""
        task = asyncio.get_running_loop().create_task(self._run(response, make))
        self._tasks[response.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(response.id, None))

    def cancel(self, response: Response) -> None:
        """Stops making that response."""
        if task := self._tasks.get(response.id):
            task.cancel()

    async def close(self) -> None:
        """Stops all of them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, response: Response, make: Callable[[Response], Coroutine[None, None, None]]) -> None:
        try:
            await make(response)
        except Failure as error:
            response.fail(str(error))
        except Exception as error:
            # A fault of ours costs this response, not the call.
            response.fail(f"the agent failed: {type(error).__name__}")
