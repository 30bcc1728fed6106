"""A session without media: its client speaks through a signaling process, audio in events and all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rtc.pacer import Pacer
from runtime import logs
from transceiver.talk.successor import Successor
from transceiver.talk.talk import Talk
from wire.ufrag import call_id

__all__ = ["EVENTS", "SocketSession"]

EVENTS = "events"
"""What stands in the place of a codec's name."""

_LONGEST_S = 3600.0  # as OpenAI's; and what a signaling process that died leaves behind


class SocketSession:
    """A session without media. ``on_end(session)`` is called once. It keeps time by the same clock as calls do, for
    turns and time-outs."""

    owns = ("talk",)

    def __init__(
        self,
        ufrag: str,
        talk: Talk,
        *,
        pacer: Pacer,
        on_end: Callable[[SocketSession], None],
        owner: str = "",
    ) -> None:
        self.ufrag = ufrag
        self.owner = owner
        self.talk = talk
        self.ended = ""
        self.began = time.monotonic()
        self._pacer = pacer
        self._on_end = on_end
        self._joining: asyncio.Task[None] | None = None
        self._log = logs.get().bind(call=call_id(ufrag), **talk.trace.span.fields)

    @property
    def kind(self) -> tuple[str, str]:
        """What its cost depends on: the agent, and that it has no codec."""
        return self.talk.agent_name, EVENTS

    @property
    def quiet(self) -> bool:
        """Whether neither the client nor the agent speaks."""
        return self.talk.begun and self.talk.conversation.quiet

    @property
    def speaks(self) -> bool:
        """Whether the agent is at a response. The talk must have begun."""
        return self.talk.conversation.seat.busy

    def open(self) -> None:
        """Makes the agent, and greets those who watch."""
        self.talk.begin(self.end)
        if not self.ended:
            self._pacer.add(self._tick, self.kind)
            self.talk.greet()

    def give_to(self, successor: Successor) -> None:
        """Gives the agent's place to another one; ``talk.retired`` is to follow."""
        self.talk.give_to(successor)
        self._pacer.rename(self._tick, self.kind)

    def when_kept(self, tell: Callable[[], None]) -> None:
        """Calls ``tell``: a session without media does not outlive this process."""
        tell()

    def sweep(self, now: float) -> None:
        """Looks after the agent; called about once a second."""
        if now - self.began > _LONGEST_S:
            self.end("expired")
        else:
            self.talk.check(now)

    def end(self, reason: str) -> None:
        """Ends the session, once; ``reason`` is one of ``counters.ENDS``."""
        if self.ended:
            return
        self.ended = reason
        self._pacer.remove(self._tick)
        # Of a shutdown the socket's close code says so, and clients come again.
        self.talk.end(reason, in_words=reason != "shutdown")
        self._joining = asyncio.get_running_loop().create_task(self.talk.joined())
        self._on_end(self)

    async def closed(self) -> None:
        """Waits until nothing of an ended session runs."""
        if self._joining is not None:
            await self._joining

    def _tick(self) -> None:
        try:
            self.talk.conversation.tick(time.monotonic())
        except Exception as e:
            self._log.error("session failed", error=repr(e), exc_info=e)
            self.end("session_failed")
