"""The threads in which models compute: a bounded queue for each part of the engine, and what says that one hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from transceiver.engine import EngineError

__all__ = ["Job", "Worker"]

Result = TypeVar("Result")


class Job:
    """One request at work. ``cancelled`` is set by the loop, and read by the thread between two pieces."""

    def __init__(self) -> None:
        self.cancelled = False
        self.since: float | None = None  # when its thread last got on

    def beat(self) -> bool:
        """Takes note that it gets on; whether nobody wants it any more."""
        self.since = time.monotonic()
        return self.cancelled


class Worker:
    """One part: ``threads`` threads, and a queue of ``most`` requests besides."""

    def __init__(self, name: str, threads: int, most: int) -> None:
        self._name = name
        self._most = most + threads
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, name)
        self._jobs: set[Job] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._last = asyncio.Lock()  # of one that runs when nothing else does
        self._patient = 0  # wait for that

    @property
    def waiting(self) -> int:
        """The requests that it has, those that it is at included."""
        return len(self._jobs)

    def stuck_for(self, now: float) -> float:
        """The longest time, in seconds, for which one of its threads has not got on."""
        return max((now - since for job in list(self._jobs) if (since := job.since) is not None), default=0.0)

    async def run(self, work: Callable[[Job], Result], *, yielding: bool = False) -> Result:
        """Runs ``work`` in a thread. Raises EngineError, busy, where the queue is full, or one that is ``yielding``
        would have to wait. When the task is cancelled, so is the job."""
        if len(self._jobs) >= (self._threads if yielding else self._most):
            raise EngineError(f"{self._name}: too many ask at once", busy=True)
        job = Job()

        def run() -> Result:
            if job.beat():
                raise EngineError("cancelled")
            try:
                return work(job)
            finally:
                job.since = None

        loop = asyncio.get_running_loop()

        def over(_: object) -> None:
            self._jobs.discard(job)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._look)

        self._jobs.add(job)
        self._idle.clear()
        future = self._pool.submit(run)
        future.add_done_callback(over)
        try:
            # One that has not begun is cancelled with this; one at work is in the queue until its thread has seen it.
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            job.cancelled = True
            raise

    async def run_last(self, work: Callable[[Job], Result]) -> Result:
        """Runs ``work`` in a thread as soon as there is nothing else to do. Raises EngineError, busy, where too many
        wait for that already. When the task is cancelled, so is the job."""
        if self._patient >= self._most:
            raise EngineError(f"{self._name}: too many wait until it is idle", busy=True)
        self._patient += 1
        try:
            async with self._last:
                while self._jobs:
                    await self._idle.wait()
                return await self.run(work)
        finally:
            self._patient -= 1

    def _look(self) -> None:
        if not self._jobs:
            self._idle.set()
