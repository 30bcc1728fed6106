"""One clock for all the calls of a process: each is called every 20 ms, on a schedule that never drifts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from caller.voice import FRAME_S

__all__ = ["Pacer"]

# Callers are strangers to each other, so their frames do not leave together; but each slot wakes the process,
# and with 20 calls 5 slots cost two thirds of what 10 do.
_SLOTS = 5
_SLOT_S = FRAME_S / _SLOTS

Send = Callable[[], None]


class Pacer:
    """Calls each ``send()`` 50 times a second. After a stall everything that is due leaves at once, as the
    schedule wants; ``worst_late_ms`` tells how late the caller itself has been."""

    def __init__(self) -> None:
        self._slots: list[list[Send]] = [[] for _ in range(_SLOTS)]
        self._step = 0
        self._origin = 0.0
        self._timer: asyncio.Handle | None = None
        self.worst_late_ms = 0.0

    def add(self, send: Send) -> None:
        """From now on ``send`` is called every 20 ms."""
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._origin = loop.time()
            self._step = 0
        # The emptiest slot; among equals not the neighbour of the last one.
        slot = min(range(_SLOTS), key=lambda s: (len(self._slots[s]), s * 2 % _SLOTS))
        self._slots[slot].append(send)
        if self._timer is None:
            self._timer = loop.call_soon(self._run)

    def remove(self, send: Send) -> None:
        """``send`` is not called again. Nothing happens when it was not there."""
        for slot in self._slots:
            if send in slot:
                slot.remove(send)
        if self._timer is not None and not any(self._slots):
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while (due := self._origin + self._step * _SLOT_S) <= now:
            slot = self._slots[self._step % _SLOTS]
            if slot:
                self.worst_late_ms = max(self.worst_late_ms, (now - due) * 1000)
                for send in tuple(slot):
                    send()
                now = loop.time()
            self._step += 1
        if not any(self._slots):
            self._timer = None
            return
        while not self._slots[self._step % _SLOTS]:
            self._step += 1
        self._timer = loop.call_at(self._origin + self._step * _SLOT_S, self._run)
