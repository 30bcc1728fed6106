"""The garbage collector beside live media: it looks at what is new, often, and at everything only when that harms no
one, or memory has grown."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import psutil

__all__ = ["Collector"]

_EVERY_S = 0.2
_IDLE_S = 10.0
_GROWN_BYTES = 256 << 20


class Collector:
    """The collector of a process that serves sessions; ``sessions()`` is how many there are now.

    A collection looks through all that lives, so its pause grows with the sessions: 10 to 20 ms at a hundred calls,
    and 40 for the modules alone. Five times a second what is new is collected, in about a millisecond, and what is left
    of it is set aside. What an ended session refers to is freed by reference counts (``runtime.letting_go``). Circles
    that an agent has made and left are found when everything is looked through: when there has been no session for a
    while, or memory has grown by 256 MiB since the last time.
    """

    def __init__(self, sessions: Callable[[], int], rss_bytes: Callable[[], int] | None = None) -> None:
        self.whole = 0  # times that everything was looked through
        self._sessions = sessions
        self._rss = rss_bytes or _rss_bytes(psutil.Process())
        self._grown_from = self._rss()
        self._idle_since: float | None = None
        self._served = True  # there have been sessions since everything was looked through

    async def run(self) -> None:
        """Collects until it is cancelled."""
        loop = asyncio.get_running_loop()
        gc.freeze()
        while True:
            await asyncio.sleep(_EVERY_S)
            self.step(loop.time())

    def step(self, now: float) -> None:
        """Collects; called a few times a second, with ``now`` in seconds, monotonic."""
        if self._due(now):
            gc.unfreeze()
            gc.collect()
            self.whole += 1
            self._served, self._grown_from = False, self._rss()
        else:
            gc.collect()
        gc.freeze()

    def _due(self, now: float) -> bool:
        if self._sessions():
            self._served, self._idle_since = True, None
        elif self._idle_since is None:
            self._idle_since = now
        idle = self._idle_since is not None and now - self._idle_since >= _IDLE_S
        return (self._served and idle) or self._rss() - self._grown_from > _GROWN_BYTES


def _rss_bytes(process: psutil.Process) -> Callable[[], int]:
    return lambda: int(process.memory_info().rss)
