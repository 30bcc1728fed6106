"""Keeps the edge's children alive: who dies is started again, and who keeps dying is waited with.

Importing what a worker needs takes a quarter of a second, which callers would hear. So one process more than there
are workers has done that already and waits for its orders: when a worker dies it takes the place in a few
milliseconds, and another becomes the spare.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass

from edge.process import die_with_parent
from firsthop import logs
from firsthop.metrics import Tally

__all__ = ["Child", "Children"]

_HEALTHY_AFTER_S = 1.0
_BACKOFF_S = (0.0, 0.1, 0.5, 2.0, 5.0)
_GOODBYE_S = 5.0
# A new worker needs the cores more than the next spare does.
_SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Child:
    """``module`` is run with ``spec`` on standard input and the descriptors ``fds`` inherited."""

    name: str
    module: str
    spec: bytes
    fds: tuple[int, ...]


class Children:
    """Runs ``children`` for as long as its tasks live. Those of ``spare_module`` have a spare; it inherits the
    descriptors of all of them, and closes those that turn out not to be its own."""

    def __init__(self, children: list[Child], spare_module: str) -> None:
        self.restarts = Tally(
            "firsthop_edge_restarts",
            "Children that died and were started again",
            [child.name for child in children],
            label="child",
        )
        self._children = children
        self._spare_module = spare_module
        self._spare_fds = tuple({fd for child in children if child.module == spare_module for fd in child.fds})
        self._spare: Process | None = None
        self._spare_gone = asyncio.Event()
        self._log = logs.get()

    async def run(self) -> None:
        """Never returns. Cancelled, it ends them all; it raises what keeps this host from starting processes."""
        tasks = [asyncio.create_task(self._keep(child)) for child in self._children]
        tasks.append(asyncio.create_task(self._keep_spare()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        raise next(result for result in results if isinstance(result, Exception))

    async def _keep(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            process = self._take_spare(child) or await _start(child.module, child.fds)
            try:
                assert process.stdin is not None
                with contextlib.suppress(ConnectionError):
                    process.stdin.write(child.spec)
                    await process.stdin.drain()
                process.stdin.close()
                code = await process.wait()
            except asyncio.CancelledError:
                await _end(process)
                raise
            failures = 0 if loop.time() - began > _HEALTHY_AFTER_S else failures + 1
            wait = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
            self.restarts[child.name] += 1
            self._log.error("child died, starting it again", child=child.name, code=code, in_s=wait)
            await asyncio.sleep(wait)

    def _take_spare(self, child: Child) -> Process | None:
        if child.module != self._spare_module or self._spare is None or self._spare.returncode is not None:
            return None
        spare, self._spare = self._spare, None
        self._spare_gone.set()
        return spare

    async def _keep_spare(self) -> None:
        try:
            while True:
                await asyncio.sleep(_SETTLE_S)
                self._spare_gone.clear()
                self._spare = await _start(self._spare_module, self._spare_fds)
                died = asyncio.create_task(self._spare.wait())
                taken = asyncio.create_task(self._spare_gone.wait())
                try:
                    await asyncio.wait((died, taken), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    died.cancel()
                    taken.cancel()
        finally:
            if self._spare is not None:
                await _end(self._spare)


async def _start(module: str, fds: tuple[int, ...]) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, stdin=PIPE, pass_fds=fds, preexec_fn=die_with_parent
    )


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _GOODBYE_S)
        except TimeoutError:
            process.kill()
            await process.wait()
