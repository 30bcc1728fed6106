"""Where a new session goes: to the transceivers in turn, past those that are full or away."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence

from edge.signaling.access import Caller
from edge.signaling.errors import Refusal, refused, unavailable
from edge.signaling.ledger import Held, Ledger
from edge.transceivers import Refused, Unavailable

__all__ = ["Placing"]


class Placing:
    """Places sessions on the transceivers ``ids``, and in the ledger."""

    def __init__(self, ids: Sequence[int], ledger: Ledger) -> None:
        self._ids = ids
        self._ledger = ledger
        self._next = 0

    async def place(
        self, caller: Caller, ask: Callable[[int], Awaitable[dict[str, object]]], *, socket: bool = False
    ) -> tuple[int, dict[str, object]]:
        """The transceiver that took it, and its reply, with ``ufrag``. Raises Refusal."""
        wait = self._ledger.admit(caller.key, time.monotonic())
        if wait is not None:
            message = "Rate limit reached: this API key has as many calls, or new calls this minute, as it may."
            raise Refusal(429, message, code="rate_limit_exceeded", retry_after_s=max(1, math.ceil(wait)))
        ufrag, held = None, None
        try:
            transceiver, reply = await self._try_all(ask)
            ufrag, held = str(reply["ufrag"]), Held(caller.key, caller.token_id, transceiver, socket)
            return transceiver, reply
        finally:
            self._ledger.settle(caller.key, ufrag, held)

    async def _try_all(self, ask: Callable[[int], Awaitable[dict[str, object]]]) -> tuple[int, dict[str, object]]:
        trouble = Refusal(503, "no transceiver is configured", code="no_transceiver", retry_after_s=2)
        self._next += 1
        for i in range(len(self._ids)):
            chosen = self._ids[(self._next + i) % len(self._ids)]
            try:
                return chosen, await ask(chosen)
            except Unavailable as e:
                trouble = unavailable(e)
            except Refused as e:
                trouble = refused(e)
                if e.code != "full":
                    break
        raise trouble
