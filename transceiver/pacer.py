"""The clock of everything that is sent: each stream is called every 20 ms, on a schedule that does not drift.

Streams are spread over four phases 5 ms apart, so that their datagrams leave in a few batches and not all at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["FRAME_S", "Pacer"]

FRAME_S = 0.020
_PHASES = 4
_STEP_S = FRAME_S / _PHASES
_HOPELESS_S = 0.2


class Pacer:
    """Calls every stream's ``tick`` each 20 ms from the running loop; nothing runs while there is no stream."""

    def __init__(self) -> None:
        self._phases: list[dict[Callable[[], None], None]] = [{} for _ in range(_PHASES)]
        self._due = 0.0
        self._step = 0
        self._timer: asyncio.Handle | None = None
        self.skipped = 0

    def add(self, tick: Callable[[], None]) -> None:
        """From now on ``tick()`` is called every 20 ms."""
        min(self._phases, key=len)[tick] = None
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._due = loop.time()
            self._timer = loop.call_soon(self._run)

    def remove(self, tick: Callable[[], None]) -> None:
        """Never again."""
        for phase in self._phases:
            phase.pop(tick, None)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        late = loop.time() - self._due
        if late > _HOPELESS_S:
            # The process stood still (a debugger, a stopped machine): a burst of old frames would help nobody.
            steps = int(late / _STEP_S)
            self._due += steps * _STEP_S
            self.skipped += steps
        while self._due <= loop.time():
            for tick in tuple(self._phases[self._step]):
                tick()
            self._step = (self._step + 1) % _PHASES
            self._due += _STEP_S
        busy = any(self._phases)
        self._timer = loop.call_at(self._due, self._run) if busy else None
