"""Which core each slot of the ufrag's hash goes to, so that a core that leaves or returns moves its own share alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from wire.ufrag import SLOTS

__all__ = ["cores_in", "slots"]


def slots(cpus: Sequence[int], out: Collection[int] = ()) -> list[int]:
    """The CPU of each of the 256 slots, when those in ``out`` get no new calls.

    A slot has one home among ``cpus``. While that is out it is lent to another, each of which gets a like share;
    no other slot moves. Raises ValueError where no CPU would be left.
    """
    left = [cpu for cpu in cpus if cpu not in out]
    if not left:
        raise ValueError("no core would be left to take new calls")
    homes = (cpus[slot % len(cpus)] for slot in range(SLOTS))
    return [home if home not in out else left[slot // len(cpus) % len(left)] for slot, home in enumerate(homes)]


def cores_in(table: Iterable[int]) -> set[int]:
    """The CPUs that get new calls by this table of slots."""
    return set(table)
