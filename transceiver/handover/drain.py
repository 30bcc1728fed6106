"""The drain of a transceiver: its calls are handed over one by one, each when nobody speaks if that comes soon.

A call that has not connected yet is waited for. One that nobody takes is offered again until it ends, or the time for
all of them is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Never, Protocol

from runtime import logs
from transceiver.counters import HANDOVERS
from transceiver.handover.line import NotTaken
from transceiver.state import StateError
from wire.messages import Neighbour
from wire.ufrag import call_id

__all__ = ["SPEAKS_S", "Drain", "Movable"]

_LOOK_S = 0.02
SPEAKS_S = 10.0  # for so long a call is waited for in which somebody speaks
_NOWHERE_S = 1.0  # until a call that nobody took is offered again
_TRIES = 3  # transceivers that are asked at once


class Movable(Protocol):
    """A call as far as a drain is concerned."""

    ufrag: str

    @property
    def movable(self) -> bool:
        """Whether it is connected, and here."""

    @property
    def quiet(self) -> bool:
        """Whether nobody speaks."""


class Drain:
    """One drain: ``calls()`` are those that are left, ``hand_over(call, to)`` raises NotTaken or StateError where a
    call stays, and ``choose(but)`` gives a transceiver to try. ``moved`` of ``all_of_them`` have been handed over."""

    def __init__(
        self,
        calls: Callable[[], Iterable[Movable]],
        hand_over: Callable[[Any, Neighbour], Awaitable[None]],
        choose: Callable[[set[int]], Neighbour | None],
    ) -> None:
        self._calls, self._hand_over, self._choose = calls, hand_over, choose
        self._since = time.monotonic()
        self._next_try: dict[str, float] = {}
        self.moved = 0

    @property
    def all_of_them(self) -> int:
        """The number of calls: those that moved and those that are left."""
        return self.moved + sum(1 for _ in self._calls())

    async def run(self) -> Never:
        """Hands calls over, also those that come later."""
        while True:
            now = time.monotonic()
            call = next((call for call in self._calls() if self._is_due(call, now)), None)
            if call is None:
                await asyncio.sleep(_LOOK_S)
            elif await self._move(call):
                self.moved += 1
            else:
                self._next_try[call.ufrag] = time.monotonic() + _NOWHERE_S

    def _is_due(self, call: Movable, now: float) -> bool:
        if not call.movable or now < self._next_try.get(call.ufrag, 0.0):
            return False
        return call.quiet or now - self._since >= SPEAKS_S

    async def _move(self, call: Movable) -> bool:
        refused: set[int] = set()
        for _ in range(_TRIES):
            to = self._choose(refused)
            if to is None:
                break
            try:
                await self._hand_over(call, to)
            except NotTaken:
                refused.add(to.id)
            except StateError:
                return False
            except Exception:
                # A fault of ours with one call, which stays, and no reason to leave the others.
                logs.get().exception("a hand-over failed", call=call_id(call.ufrag))
                return False
            else:
                return True
            if not call.movable:
                return False
        if not refused:
            HANDOVERS["nowhere"] += 1
        return False
