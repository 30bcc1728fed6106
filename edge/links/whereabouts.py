"""Calls that live elsewhere than their ufrag says, as signaling knows them. Pure; times are in seconds.

What a call's new transceiver says of it may come before the old one's word that the call moved, because they have links
of their own. It is kept for a moment, behind the last event of the old one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from wire import ufrag
from wire.messages import Message

__all__ = ["Whereabouts"]

_MOST = 1 << 16
_MOST_EARLY = 1024  # messages, of all calls
_EARLY_S = 2.0


class Whereabouts:
    """The transceivers of calls that moved, by ufrag: the latest 65536. ``known`` are those of an earlier process."""

    def __init__(self, known: Mapping[str, int] | None = None) -> None:
        self._homes: dict[str, int] = {u: at for u, at in (known or {}).items() if at != _sealed(u)}
        self._early: deque[tuple[float, int, str, Message]] = deque()

    def home(self, ufrag: str) -> int:
        """The transceiver that has the call; -1 where the ufrag cannot be one of ours."""
        moved = self._homes.get(ufrag)
        return _sealed(ufrag) if moved is None else moved

    def put(self, ufrag: str, transceiver: int) -> None:
        """Notes that the call is at ``transceiver``."""
        self._homes.pop(ufrag, None)
        self._homes[ufrag] = transceiver
        if len(self._homes) > _MOST:
            del self._homes[next(iter(self._homes))]

    def forget(self, ufrag: str) -> None:
        """Forgets a call that is over."""
        self._homes.pop(ufrag, None)

    def early(self, transceiver: int, ufrag: str, message: Message, now: float) -> None:
        """Keeps a message of a call that is not yet known to be at ``transceiver``."""
        while self._early and (len(self._early) >= _MOST_EARLY or now - self._early[0][0] > _EARLY_S):
            self._early.popleft()
        self._early.append((now, transceiver, ufrag, message))

    def due(self, ufrag: str, now: float) -> list[Message]:
        """What was kept of a call that has just moved, in order."""
        home = self.home(ufrag)
        mine = [e for e in self._early if e[2] == ufrag and e[1] == home]
        self._early = deque(e for e in self._early if e[2] != ufrag)
        return [message for at, _, _, message in mine if now - at <= _EARLY_S]


def _sealed(name: str) -> int:
    return ufrag.transceiver_of(name.encode())
