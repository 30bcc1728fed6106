"""A session without media: its client speaks through a signaling process, and audio travels in events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rtc.pacer import Pacer
from runtime import logs
from transceiver.agents import Base
from transceiver.counters import ENDS
from transceiver.realtime.config import Config
from transceiver.records.files import Records
from transceiver.talk.dialogue import Dialogue, Watchers
from wire.ufrag import call_id

__all__ = ["SocketSession"]

_LONGEST_S = 3600.0  # as OpenAI's; and what a signaling process that died leaves behind


class SocketSession:
    """``on_end(session)`` is called once. It keeps time by the same clock as calls do, for turns and time-outs."""

    def __init__(
        self,
        ufrag: str,
        agent: tuple[str, type[Base]],
        *,
        pacer: Pacer,
        config: Config,
        on_end: Callable[[SocketSession], None],
        owner: str = "",
        records: Records | None = None,
    ) -> None:
        self.ufrag = ufrag
        self.owner = owner
        self.ended = ""
        self.watchers = Watchers()
        self._began = time.monotonic()
        self._name, self._kind = agent
        self.config = config
        self._pacer = pacer
        self._on_end = on_end
        self._dialogue: Dialogue | None = None
        # Without media nobody here knows when the client heard what.
        self._record = records.open(call_id(ufrag), None) if records is not None else None
        self._joining: asyncio.Task[None] | None = None
        self._log = logs.get().bind(call=call_id(ufrag))

    def open(self) -> None:
        """Makes the agent, and greets who watches."""
        self._dialogue = Dialogue(self.config, self._kind, None, self.watchers, self._agent_failed, self._record)
        self._dialogue.begin()
        if not self.ended:
            self._pacer.add(self._tick)
            self._dialogue.greet()

    def client_event(self, text: str) -> None:
        """An event of the client's, or of somebody who watches."""
        if self._dialogue is not None and not self.ended:
            self._dialogue.client_event(text)

    def sweep(self, now: float) -> None:
        """Called about once a second."""
        if now - self._began > _LONGEST_S:
            self.end("expired")
        elif self._dialogue is not None:
            self._dialogue.host.check(now)

    def end(self, reason: str) -> None:
        """Ends it, once; ``reason`` is one of ``counters.ENDS``."""
        if self.ended:
            return
        self.ended = reason
        ENDS[reason] += 1
        self._pacer.remove(self._tick)
        if self._dialogue is not None:
            if reason != "shutdown":  # the close code says so, and clients come again
                self._dialogue.tell_end(reason)
            self._dialogue.close()
            self._joining = asyncio.get_running_loop().create_task(self._dialogue.host.joined())
        if self._record is not None:
            self._record.close()
        self._log.info("ended", reason=reason)
        self._on_end(self)

    async def closed(self) -> None:
        """Waits until nothing of an ended session runs."""
        if self._joining is not None:
            await self._joining

    def _tick(self) -> None:
        assert self._dialogue is not None
        try:
            self._dialogue.conversation.tick(time.monotonic())
        except Exception as e:
            self._log.error("session failed", error=repr(e), exc_info=e)
            self.end("session_failed")

    def _agent_failed(self, why: str) -> None:
        if self.ended:
            return
        self._log.error("agent failed", agent=self._name, why=why)
        self.end("agent_failed")
