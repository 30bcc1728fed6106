"""The machine's time in fast motion: an event loop that never waits, and the clock that all code sees."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["TimeLapse"]

_MACHINE = time.monotonic


class TimeLapse(selectors.EpollSelector):
    """The selector of an event loop. Where that would wait, ``next_event()`` makes something happen, while there is
    one, and sets ``now``; what the loop's thread takes for everything else is ``busy_s``, in seconds of CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.busy_s = 0.0
        self.now = _MACHINE()
        self.next_event: Callable[[], None] | None = None
        self._since = time.thread_time()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As ``EpollSelector.select``."""
        if self.next_event is None or (timeout is not None and timeout <= 0):
            return super().select(timeout)
        self.busy_s += time.thread_time() - self._since
        self.next_event()
        self._since = time.thread_time()
        return super().select(0)

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Has ``time.monotonic`` be ``now`` until the block is left."""
        self.now = _MACHINE()
        time.monotonic = lambda: self.now
        try:
            yield
        finally:
            time.monotonic = _MACHINE
