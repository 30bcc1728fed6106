"""The placing of new sessions: transceivers take turns, and those that are full, away or silent are passed over."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from edge.links.transceivers import RequestRefused, Silent, Transceivers, Unavailable
from edge.signaling.access import Caller
from edge.signaling.errors import Refusal, refused, unavailable
from edge.signaling.ledger import Held, Ledger
from wire import messages

__all__ = ["Placing"]

_PULSE_S = 0.5  # within which a transceiver that lives has said that it does
_PASSED_OVER_S = 2.0

Reply = TypeVar("Reply", bound=messages.Message)
Placed = TypeVar("Placed", messages.Answer, messages.Opened)


class Placing:
    """The placing of sessions on ``transceivers``, entered in the ledger.

    What a caller sent goes to one transceiver. That one is asked first whether it lives, so what is silent afterwards
    is silent because of the request, and it would silence the next transceiver too.
    """

    def __init__(self, transceivers: Transceivers, ledger: Ledger) -> None:
        self._transceivers = transceivers
        self._ledger = ledger
        self._turn = 0
        self._silent_until: dict[int, float] = {}

    async def place(
        self, caller: Caller, ask: Callable[[int], Awaitable[Placed]], *, socket: bool = False
    ) -> tuple[int, Placed]:
        """Places a session. Returns the transceiver that took it and its reply. Raises Refusal."""
        wait = self._ledger.admit(caller.key, time.monotonic(), caller.token_id)
        if wait is not None:
            message = f"Rate limit reached: {wait.whose} has as many calls, or new calls this minute, as it may."
            raise Refusal(429, message, code="rate_limit_exceeded", retry_after_s=max(1, math.ceil(wait.seconds)))
        ufrag, held = None, None
        try:
            transceiver, reply = await self.anywhere(ask)
            ufrag, held = reply.ufrag, Held(caller.key, caller.token_id, transceiver, socket)
            return transceiver, reply
        finally:
            self._ledger.settle(caller.key, caller.token_id, ufrag, held)

    async def anywhere(self, ask: Callable[[int], Awaitable[Reply]]) -> tuple[int, Reply]:
        """Asks one transceiver after the other, until one is neither full nor away. Returns it and its reply. Raises
        Refusal."""
        trouble = Refusal(503, "no transceiver is configured", code="no_transceiver", retry_after_s=2)
        for chosen in self._order():
            try:
                if not await self._lives(chosen):
                    raise Unavailable(f"transceiver {chosen} does not answer")
                return chosen, await ask(chosen)
            except Silent as e:
                self._pass_over(chosen)
                raise unavailable(e) from None
            except Unavailable as e:
                trouble = unavailable(e)
            except RequestRefused as e:
                trouble = refused(e)
                if e.code not in ("full", "draining"):
                    break
        raise trouble

    def _order(self) -> list[int]:
        """The ids of all, beginning with the one whose turn it is; those that were silent just now come last."""
        ids, now = self._transceivers.ids, time.monotonic()
        self._turn = (self._turn + 1) % max(1, len(ids))
        return sorted(ids[self._turn :] + ids[: self._turn], key=lambda i: self._silent_until.get(i, 0.0) > now)

    def _pass_over(self, transceiver: int) -> None:
        self._silent_until[transceiver] = time.monotonic() + _PASSED_OVER_S

    async def _lives(self, transceiver: int) -> bool:
        try:
            await self._transceivers.ask(transceiver, messages.Health(), patience_s=_PULSE_S)
        except Silent:
            self._pass_over(transceiver)
            return False
        except (Unavailable, RequestRefused):
            return False
        self._silent_until.pop(transceiver, None)
        return True
