"""The transceivers to which calls could go, as the edges tell of them, and the choice of one. Pure."""

from __future__ import annotations

import random
from collections.abc import Container

from wire.messages import Neighbour, Neighbours
from wire.naming import edge_of

__all__ = ["Neighbourhood"]

_FRESH_S = 10.0  # edges tell every two seconds
_MOST_EDGES = 64


class Neighbourhood:
    """What the edges said last, each for ten seconds; ``own`` is the id of this transceiver. ``now`` is in seconds."""

    def __init__(self, own: int, chance: random.Random) -> None:
        self._own = own
        self._chance = chance
        self._told: dict[bytes, tuple[float, list[Neighbour]]] = {}

    def heard(self, peer: bytes, told: Neighbours, now: float) -> None:
        """Takes what a process of an edge says."""
        edge = edge_of(peer)
        self._told.pop(edge, None)
        self._told[edge] = now, told.neighbours
        if len(self._told) > _MOST_EDGES:
            del self._told[next(iter(self._told))]

    def find(self, number: int, now: float) -> Neighbour | None:
        """The one with that id, whether it takes calls or not."""
        return self._known(now).get(number)

    def present(self, now: float) -> list[Neighbour]:
        """All that can take calls, each as the edge says that spoke last."""
        return [each for each in self._known(now).values() if not each.draining and each.room != 0]

    def choose(self, but: Container[int], now: float) -> Neighbour | None:
        """The one of two, taken by chance, that has more room; of those whose id is not in ``but``. Many that leave
        at once do not all choose the same."""
        fit = [each for each in self.present(now) if each.id not in but]
        two = self._chance.sample(fit, min(2, len(fit)))
        return max(two, key=lambda each: each.room or 0, default=None)

    def _known(self, now: float) -> dict[int, Neighbour]:
        known: dict[int, Neighbour] = {}
        for at, told in self._told.values():
            if now - at < _FRESH_S:
                known.update((each.id, each) for each in told if each.id != self._own)
        return known
