"""An event loop that knows for how long it had something to do.

The time that it waited for the next event is what it can still give. Everything else stands in the way of the next
event, whatever it was spent on: Python, a wait for the interpreter's lock, another process on the core, or another
virtual machine.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["BusySelector", "run"]


class BusySelector(selectors.EpollSelector):
    """A selector that counts the seconds that passed outside of it. It adds a third of a microsecond to a turn of the
    loop that waits."""

    def __init__(self) -> None:
        super().__init__()
        self._busy_s = 0.0
        self._since = time.perf_counter()

    @property
    def busy_s(self) -> float:
        """The seconds in which the loop had something to do, until now; for code that runs on the loop."""
        return self._busy_s + time.perf_counter() - self._since

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As ``EpollSelector.select``. A loop that does not wait, because work is there, is busy all the same."""
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        self._busy_s += time.perf_counter() - self._since
        try:
            return super().select(timeout)
        finally:
            self._since = time.perf_counter()


def run(main: Callable[[BusySelector], Coroutine[Any, Any, None]]) -> None:
    """Runs ``main(selector)``, as ``asyncio.run`` does, on a loop whose selector that is."""
    selector = BusySelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(main(selector))
