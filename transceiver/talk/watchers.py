"""The watchers of a session: everybody who gets its events."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

__all__ = ["Send", "Watchers"]

# An event as JSON and as it was, and the ``event_id`` of the client's that it answers.
Send = Callable[[str, dict[str, Any], str | None], None]


class Watchers:
    """The watchers, each of whom gets a session's events as JSON. One that is there twice gets them once."""

    def __init__(self) -> None:
        self._sends: dict[Hashable, Send] = {}
        self._times: dict[Hashable, int] = {}

    def add(self, who: Hashable, send: Send) -> None:
        self._sends[who] = send
        self._times[who] = self._times.get(who, 0) + 1

    def remove(self, who: Hashable) -> None:
        self._times[who] = self._times.get(who, 0) - 1
        if self._times[who] <= 0:
            self._times.pop(who)
            self._sends.pop(who, None)

    def __contains__(self, who: Hashable) -> bool:
        return who in self._sends

    def get(self, who: Hashable) -> Send | None:
        """The way to that one, if it watches."""
        return self._sends.get(who)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(tuple(self._sends))

    def counted(self) -> dict[Hashable, int]:
        """How often each is there."""
        return dict(self._times)

    def tell(self, text: str, event: dict[str, Any], asked: str | None = None) -> None:
        """Gives an event to all. ``asked`` is the ``event_id`` of the client's event that this answers."""
        for send in tuple(self._sends.values()):
            send(text, event, asked)
