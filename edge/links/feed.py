"""The queue to one WebSocket: bounded and in order; its end comes after what waits, or cuts it off."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from dataclasses import dataclass

__all__ = ["Ending", "Feed", "error_event"]

_MOST = 256
_MOST_BYTES = 4 << 20
_TOO_SLOW = 1013  # "try again later", IANA's WebSocket close codes


@dataclass(frozen=True, slots=True)
class Ending:
    """A close code (RFC 6455 section 7.4) and the reason beside it."""

    code: int
    reason: str


class Feed:
    """The queue: at most 256 events or 4 MiB of them; one alone may be larger. One more shows that the reader is too
    slow: what waits is dropped, and the reader is cut off."""

    def __init__(self, most: int = _MOST, most_bytes: int = _MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._waiting: deque[str] = deque()
        self._characters = 0
        self._ending: Ending | None = None
        self._news = asyncio.Event()
        self.was_cut = asyncio.Event()

    @property
    def ending(self) -> Ending | None:
        """The end, set once nothing more will come."""
        return self._ending

    def put(self, event: str) -> None:
        """Queues an event, unless the feed has ended."""
        if self._ending is not None:
            return
        full = len(self._waiting) >= self._most or self._characters + len(event) > self._most_bytes
        if full and self._waiting:
            self.cut(Ending(_TOO_SLOW, "events were not read in time"))
            return
        self._waiting.append(event)
        self._characters += len(event)
        self._news.set()

    def end(self, ending: Ending) -> None:
        """Ends the feed behind what waits."""
        self._ending = self._ending or ending
        self._news.set()

    def cut(self, ending: Ending) -> None:
        """Ends the feed at once, and drops what waits."""
        self._ending = self._ending or ending
        self._waiting.clear()
        self._characters = 0
        self._news.set()
        self.was_cut.set()

    async def get(self) -> str | None:
        """The next event; None at the end."""
        while not self._waiting:
            if self._ending is not None:
                return None
            self._news.clear()
            await self._news.wait()
        event = self._waiting.popleft()
        self._characters -= len(event)
        return event


def error_event(kind: str, code: str, message: str, event_id: str | None = None) -> str:
    """An ``error`` event of the Realtime API's as JSON, which answers the client's event ``event_id``, if any."""
    error = {"type": kind, "code": code, "message": message, "param": None, "event_id": event_id}
    return json.dumps({"type": "error", "event_id": f"event_{secrets.token_hex(10)}", "error": error})
