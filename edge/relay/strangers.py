"""Limits on what costs a worker more than media does: datagrams of strangers, and checks.

XDP applies the same limits before any socket (``edge/xdp/limits.py``); these serve when XDP is not there. The datagram
has been received already then, so they save a Python call for it, and all the work of its transceiver. Pure.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from edge.relay.flowtable import NOBODY
from edge.xdp.limits import CHECKS, NAMED, Rate

__all__ = ["LOOKED_AT", "Buckets", "Strangers"]

# Of all strangers together, good or bad: a look is 6 us, so that is an eighth of a core.
LOOKED_AT: Final = Rate(20_000, 1000)
_MOST_NAMES = 4096


class Buckets:
    """A token bucket for each name, for the latest ``entries`` names; ``now`` is in seconds of a clock that never
    jumps. Buckets work as in ``bpf/admit.h``."""

    def __init__(self, rate: Rate, entries: int = _MOST_NAMES) -> None:
        self._interval_s = 1 / rate.per_s
        self._burst = rate.burst
        self._entries = entries
        self._due: dict[bytes | int, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def take(self, name: bytes | int, now: float, wanted: int = 1) -> int:
        """The number of tokens, out of ``wanted``, that the name gets."""
        due = max(now, self._due.pop(name, now))
        granted = min(wanted, self._burst - int((due - now) / self._interval_s + 0.5))
        self._due[name] = due + granted * self._interval_s
        if len(self._due) > self._entries:
            del self._due[next(iter(self._due))]
        return granted


class Strangers:
    """The limits of a worker on strangers; ``all_of_them`` says that strangers have a limit together as well."""

    def __init__(self, *, all_of_them: bool = True) -> None:
        self._all = Buckets(LOOKED_AT) if all_of_them else None
        self._named = Buckets(NAMED)
        self._checks = Buckets(CHECKS)

    def beyond(
        self, asking: npt.NDArray[np.bool_], owners: npt.NDArray[np.int32], addresses: npt.NDArray[np.uint8], now: float
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The places in a batch of datagrams that exceed the limits, out of those that are ``asking`` to be looked at:
        first datagrams of strangers, then STUN messages of known flows. ``owners`` is NOBODY for strangers,
        ``addresses`` are (n, 18)."""
        strangers = np.flatnonzero(asking & (owners == NOBODY))
        looked_at = len(strangers) if self._all is None else self._all.take(0, now, len(strangers))
        checks = np.flatnonzero(asking & (owners != NOBODY)).tolist()
        loud = [i for i in checks if not self._checks.take(addresses[i].tobytes(), now)]
        return strangers[looked_at:], np.array(loud, np.intp)

    def may_name(self, name: bytes | int, now: float) -> bool:
        """Whether a stranger's datagram may go on that names a good ufrag, or an SSRC."""
        return bool(self._named.take(name, now))
