"""The silence of a way on which XDP puts media and none arrives, as a firewall rule makes it that was added later.
Pure."""

from __future__ import annotations

from typing import Literal

__all__ = ["DOUBTED_S", "SILENT_S", "Judgement", "Silence"]

DOUBTED_S, SILENT_S = 1.0, 3.0

Judgement = Literal["heard", "doubted", "silent"]


class Silence:
    """Compares what XDP has seen leave with what its reader says that it has taken. Only a reader that speaks is
    judged: one that stands still may have media waiting in its socket, and takes it later."""

    def __init__(self) -> None:
        self._seen = self._taken = -1
        self._since: float | None = None  # media has gone there that was not taken
        self._doubted: float | None = None
        self._last = 0.0

    def judge(self, seen: int, taken: int, now: float) -> Judgement:
        """The reader has just said that it has ``taken`` so much in all; of what XDP has put there, ``seen`` tells that
        it grows. ``now`` is in seconds of a clock that never jumps.

        A way is doubted where nothing was taken for DOUBTED_S while media went there, without a pause of SILENT_S. The
        clients' own packets may be all that is wrong, their checksums for instance, so one that is right is to be put
        there now. The way is silent where that is not taken either within DOUBTED_S, and nothing was for SILENT_S."""
        goes, self._seen = seen != self._seen, seen
        if taken != self._taken or (not goes and now - self._last > SILENT_S):
            self._taken, self._since, self._doubted = taken, None, None
            return "heard"
        if goes:
            self._last = now
            self._since = now if self._since is None else self._since
        if self._since is None or now - self._since < DOUBTED_S:
            return "heard"
        if self._doubted is None:
            self._doubted = now
        elif goes and now - self._since >= SILENT_S and now - self._doubted >= DOUBTED_S:
            return "silent"
        return "doubted"
