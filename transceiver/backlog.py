"""The queue of work that media does not wait for: offers, handshakes, data channels.

A burst of new calls is a second of such work. One piece of it is done in each turn of the event loop, a millisecond at
most, so that what is due to callers who talk comes between. While media is behind its time, one piece in 10 ms is done:
seven calls that came at once took a third of a core that had a quarter left, and everybody's frames were late. Owners
take turns, so a caller that floods the transceiver with DTLS delays only itself. All work stays on the one loop that
owns the sessions: threads would only take turns at the interpreter's lock, and pass it on less often.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable

__all__ = ["Backlog"]

_MOST = 64
_BEHIND_S = 0.004  # as media is now and then on an idle core
_ALL_THE_SAME_S = 0.010
_LOOKS_AGAIN_S = 0.002

Job = Callable[[], None]


class Backlog:
    """Jobs in the order in which each owner brought them; owners take turns. ``spent_s`` is what all have taken.
    ``behind()`` is how many seconds media is late now."""

    def __init__(self, behind: Callable[[], float] = float) -> None:
        self._waiting: dict[Hashable, deque[Job]] = {}
        self._behind = behind
        self._next: asyncio.Handle | None = None
        self._did = float("-inf")  # when the last one began
        self.spent_s = 0.0

    def __len__(self) -> int:
        """The number of jobs that wait."""
        return sum(map(len, self._waiting.values()))

    def put(self, owner: Hashable, job: Job, *, most: int = _MOST) -> bool:
        """Has ``job()`` called soon. Returns False, and does nothing else, where ``most`` of the owner's jobs wait
        already."""
        jobs = self._waiting.setdefault(owner, deque())
        if len(jobs) >= most:
            return False
        jobs.append(job)
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._run)
        return True

    def take(self, owner: Hashable) -> tuple[Job, ...]:
        """All jobs of the owner, for whoever asks to do them now."""
        return tuple(self._waiting.pop(owner, ()))

    def forget(self, owner: Hashable) -> None:
        """Drops all jobs of the owner."""
        self._waiting.pop(owner, None)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._next = None
        if not self._waiting:
            return  # they were forgotten
        began = loop.time()
        if self._behind() > _BEHIND_S and began < self._did + _ALL_THE_SAME_S:
            self._next = loop.call_later(_LOOKS_AGAIN_S, self._run)
            return
        self._did = began
        owner, jobs = next(iter(self._waiting.items()))
        del self._waiting[owner]
        job = jobs.popleft()
        if jobs:
            self._waiting[owner] = jobs  # behind the others
        if self._waiting:
            self._next = loop.call_soon(self._run)
        try:
            job()
        except Exception as e:
            loop.call_exception_handler({"message": "work for a session failed", "exception": e})
        self.spent_s += loop.time() - began
