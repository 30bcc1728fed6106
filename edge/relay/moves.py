"""Calls that live elsewhere than their ufrag says, as a worker knows them. Pure; times are in seconds.

A call's ufrag names the transceiver that answered it, for ever. When another one takes the call over, its ufrags get an
entry here, and what they name is overruled. The transceiver that had the call goes on passing to the client what the
other one sends, until that knows the worker; so a moved path has two that may send by it for a while.
"""

from __future__ import annotations

__all__ = ["FORMER_S", "IDLE_S", "Moves"]

IDLE_S = 60.0  # as for flows: a caller checks its consent every few seconds (RFC 7675)
FORMER_S = 10.0
_MOST = 1 << 16


class Moves:
    """Where calls are by ufrag, the latest ``most`` that were told or asked for; and as many moved paths."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._homes: dict[bytes, tuple[int, float]] = {}  # who was asked for last is last
        self._former: dict[bytes, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._homes)

    def home(self, ufrag: bytes, sealed: int, now: float) -> int:
        """The transceiver that has the call; ``sealed`` is the one in its ufrag."""
        moved = self._homes.pop(ufrag, None)
        if moved is None:
            return sealed
        self._homes[ufrag] = (moved[0], now)
        return moved[0]

    def put(self, ufrag: bytes, transceiver: int, now: float) -> None:
        """Notes that the call is at ``transceiver``."""
        self._homes.pop(ufrag, None)
        self._homes[ufrag] = (transceiver, now)
        if len(self._homes) > self._most:
            del self._homes[next(iter(self._homes))]

    def left(self, address: bytes, transceiver: int, now: float) -> None:
        """Notes that the path at ``address`` was ``transceiver``'s until now."""
        self._former.pop(address, None)
        self._former[address] = (transceiver, now)
        if len(self._former) > self._most:
            del self._former[next(iter(self._former))]

    def may_still_send(self, address: bytes, transceiver: int, now: float) -> bool:
        """Whether the path was that transceiver's until a moment ago."""
        former = self._former.get(address)
        return former is not None and former[0] == transceiver and now - former[1] < FORMER_S

    def expire(self, now: float) -> None:
        """Forgets calls that nobody asked for, and paths that moved long ago."""
        for entries, lasts_s in ((self._homes, IDLE_S), (self._former, FORMER_S)):
            while entries:
                key, (_, at) = next(iter(entries.items()))
                if now - at < lasts_s:
                    break
                del entries[key]
