"""The silence of a way on which XDP puts media and none arrives, as a firewall rule makes it that was added later.
Pure."""

from __future__ import annotations

__all__ = ["SILENT_S", "Silence"]

SILENT_S = 3.0


class Silence:
    """Compares what XDP has seen leave with what its reader says that it has taken. Only a reader that speaks is
    judged: one that stands still may have media waiting in its socket, and takes it later."""

    def __init__(self) -> None:
        self._seen = self._taken = -1
        self._since: float | None = None  # media has gone there that was not taken
        self._last = 0.0

    def heard(self, seen: int, taken: int, now: float) -> bool:
        """Whether the way is silent. The reader has just said that it has ``taken`` so much in all; of what XDP has put
        there, ``seen`` tells that it grows. ``now`` is in seconds of a clock that never jumps.

        A way is silent where nothing was taken for SILENT_S while media went there, without a pause as long as that."""
        goes, self._seen = seen != self._seen, seen
        if taken != self._taken or (not goes and now - self._last > SILENT_S):
            self._taken, self._since = taken, None
            return False
        if goes:
            self._last = now
            self._since = now if self._since is None else self._since
        return goes and self._since is not None and now - self._since >= SILENT_S
