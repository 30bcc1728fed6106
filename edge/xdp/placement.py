"""The map from slots of the ufrag's hash to cores: a core that leaves or returns moves only its own share."""

from __future__ import annotations

from collections.abc import Collection

from wire.ufrag import SLOTS

__all__ = ["slots"]


def slots(cpus: Collection[int], out: Collection[int] = ()) -> list[int]:
    """The CPU of each of the 256 slots, when those in ``out`` get no new calls.

    A slot has one home among ``cpus``. While that is out it is lent to another, each of which gets a like share;
    no other slot moves. Raises ValueError where no CPU would be left.
    """
    homes, left = sorted(cpus), sorted(set(cpus) - set(out))
    if not left:
        raise ValueError("no core would be left to take new calls")
    placed = []
    for slot in range(SLOTS):
        turn, place = divmod(slot, len(homes))
        placed.append(homes[place] if homes[place] in left else left[(turn + place) % len(left)])
    return placed
