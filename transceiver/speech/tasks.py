"""The base of agents that make each response in a task of its own, in the agent's loop, which can be ended at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import ClassVar, Literal, TypeVar

from transceiver.agents import Base, Line, Response

__all__ = ["Answering", "Failure", "background"]

_T = TypeVar("_T")


def background(work: Awaitable[_T]) -> asyncio.Future[_T]:
    """A task whose failure is told by whoever waits for it, if anybody does."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    return task


class Failure(Exception):
    """The reason why a response cannot be finished, in words for the client."""


class Answering(Base):
    """An agent whose subclass says in ``_answer`` how a response is made. Whatever ends a response's task, the response
    gets ``done``, ``fail`` or a cancel; it never goes on in silence."""

    runs: ClassVar[Literal["loop", "thread"]] = "thread"

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def respond(self, response: Response) -> None:
        """Begins to make the response."""
        task = asyncio.get_running_loop().create_task(self._run(response))
        self._tasks[response.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(response.id, None))

    def cancelled(self, response: Response) -> None:
        """Stops making the response."""
        if task := self._tasks.get(response.id):
            task.cancel()

    async def close(self) -> None:  # type: ignore[override]
        """Stops all that is being made."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, response: Response) -> None:
        """Streams into ``response`` and finishes it. Raises Failure with what the client shall read."""
        raise NotImplementedError

    async def _run(self, response: Response) -> None:
        try:
            await self._answer(response)
        except Failure as error:
            response.fail(str(error))
        except Exception as error:
            # A fault of ours costs this response, not the call.
            response.fail(f"the agent failed: {type(error).__name__}")
