"""How much a worker looks at of what costs it more than media does: strangers, and checks.

XDP limits the same before any socket (``edge/limits.py``); this is for when it is not there. The datagram has been
received already then, and what is saved is a Python call for it, and all that its transceiver would do. Pure.
"""

from __future__ import annotations

from typing import Final

from edge.limits import CHECKS, NAMED, Rate

__all__ = ["LOOKED_AT", "Buckets", "Strangers"]

# Of all strangers together, good or bad: a look is 6 us, so that is an eighth of a core.
LOOKED_AT: Final = Rate(20_000, 1000)
_MOST_NAMES = 4096


class Buckets:
    """A token bucket for each name, the latest ``entries`` of them; ``now`` is in seconds of a clock that never jumps.
    Each is kept as in ``bpf/admit.h``."""

    def __init__(self, rate: Rate, entries: int = _MOST_NAMES) -> None:
        self._interval_s = 1 / rate.per_s
        self._burst = rate.burst
        self._entries = entries
        self._due: dict[bytes | int, float] = {}

    def take(self, name: bytes | int, now: float, wanted: int = 1) -> int:
        """How many of ``wanted`` it may have."""
        due = max(now, self._due.pop(name, now))
        granted = min(wanted, self._burst - int((due - now) / self._interval_s + 0.5))
        self._due[name] = due + granted * self._interval_s
        if len(self._due) > self._entries:
            del self._due[next(iter(self._due))]
        return granted


class Strangers:
    """Whose datagrams a worker looks at."""

    def __init__(self) -> None:
        self._all = Buckets(LOOKED_AT)
        self._named = Buckets(NAMED)
        self._checks = Buckets(CHECKS)

    def look(self, count: int, now: float) -> int:
        """How many of ``count`` strangers' datagrams may be looked at."""
        return self._all.take(0, now, count)

    def may_name(self, name: bytes | int, now: float) -> bool:
        """Whether a stranger may go on with a good ufrag, or an SSRC."""
        return bool(self._named.take(name, now))

    def may_check(self, address: bytes, now: float) -> bool:
        """Whether a known flow may send a STUN message."""
        return bool(self._checks.take(address, now))
