"""The capacity of a process, learned from what it measured of itself: how many more calls it can take. Pure.

Once a second comes a ``Window``. Calls of a kind (an agent and a codec) cost the time that their frames took, and an
equal part of what nobody can be named for, such as datagrams that came; the work of setting calls up comes in bursts
and is no call's. What is in use, and what calls that were let in since will use, must stay below a limit. Where that
is, lateness tells: it goes down to below what was in use when frames were late, and comes back slowly while none are.

A process that cannot keep its calls on schedule all the same, because a neighbour has taken its core, has too many of
them. Then a few have to leave, so that the others can be served: slowly, because a pause of the machine looks the same.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import NamedTuple

__all__ = ["Capacity", "Kind", "Window"]

# The share of a core, or of the loop's time, below which frames are on schedule; the first is where it begins.
_CEILING, _FLOOR = 0.88, 0.25
_BACK, _UP_A_WINDOW = 0.95, 0.01
_LATE_S, _CALM_S = 0.005, 0.004  # 99th percentile of the lag
_STRAINED = 2  # windows in a row
_REOPENS_BELOW = 0.03  # that far under the limit, once it was reached
_MEMORY = 0.25  # weight of a window in what is remembered
_DEARER, _CHEAPER = 0.5, 0.25  # the same for costs
_DRAWN_OUT_S = 3.0  # a window that lasted so long is no measurement: the process stood still
_SETUP_S = 0.01  # of a call, before one was measured
# Frames that were missed, and windows in a row in which as many were, before anybody leaves.
_MISSED, _OVERLOADED = 0.01, 3
_SHARE_LEAVES = 10  # one of so many in a window
_OWN_FAULT = 0.6  # used, below which fewer calls would help nobody

Kind = Hashable
Counts = Mapping[Kind, float]


class Window(NamedTuple):
    """What a process measured of itself in the last ``seconds``.

    ``used`` is the share of them for which the tightest of what it needs was taken, 0 to 1; ``setup_s`` the part for
    the ``begun`` calls that were set up. ``streams`` has the calls that had frames throughout, by kind, ``frames_s``
    what these took. Of ``due`` frames ``missed`` were later than a frame lasts, or never made; ``lag_s`` is the 99th
    percentile of how late they were.
    """

    seconds: float
    used: float
    streams: Counts = {}  # noqa: RUF012 - it is not changed
    frames_s: Counts = {}  # noqa: RUF012
    setup_s: float = 0.0
    begun: int = 0
    due: int = 0
    missed: int = 0
    lag_s: float = 0.0


class Capacity:
    """What is known of a process. ``prior`` is the share of a core that a call of an unknown kind may cost. ``limit``
    is the share that may be in use, ``used`` what was, ``lag_s`` how late frames were in the last window."""

    def __init__(self, prior: float) -> None:
        self.limit = _CEILING
        self.used = self.lag_s = 0.0
        self._prior = prior
        self._costs: dict[Kind, float] = {}
        self._setup = _SETUP_S
        self._fixed = 0.0
        # What was in use and by which calls, in the last window, and on average.
        self._last: tuple[float, Counts] = (0.0, {})
        self._mean: tuple[float, Counts] | None = None
        self._full: set[Kind] = set()
        self._strained = self._overloaded = 0

    def cost(self, kind: Kind) -> float:
        """The share of a core that a call of this kind takes."""
        return max(self._costs.get(kind, self._prior), 1e-6)

    def expected(self, live: Counts, begun: int = 0) -> float:
        """The share that will be in use when all ``live`` calls, by kind, are measured; ``begun`` of them were begun
        since the last window."""
        views = (self._last,) if self._mean is None else (self._last, self._mean)
        return max(used + self._unmeasured(live, streams) for used, streams in views) + begun * self._setup

    def _unmeasured(self, live: Counts, streams: Counts) -> float:
        return sum((live.get(kind, 0) - streams.get(kind, 0)) * self.cost(kind) for kind in {*live, *streams})

    def room(self, kind: Kind, live: Counts, begun: int = 0) -> int:
        """The number of calls of this kind that can be let in now. Once there was none, there is some again only a
        little way below the limit. A process without calls takes one: it would otherwise learn nothing."""
        spare = self.limit - self.expected(live, begun) - (_REOPENS_BELOW if kind in self._full else 0.0)
        return max(0 if any(live.values()) else 1, math.floor(spare / self.cost(kind)))

    def admits(self, kind: Kind, live: Counts, begun: int = 0) -> bool:
        """Whether one more call of this kind is let in now."""
        room = self.room(kind, live, begun) > 0
        (self._full.discard if room else self._full.add)(kind)
        return room

    def measured(self, window: Window) -> int:
        """Learns from a window. Returns the number of calls that have to leave."""
        self.used, self.lag_s = window.used, window.lag_s
        self._last = window.used, window.streams
        leave = self._overload(window)
        if window.seconds > _DRAWN_OUT_S:
            return leave
        self._mean = self._remembered(window)
        self._learn(window)
        self._correct(window)
        return leave

    def _remembered(self, window: Window) -> tuple[float, Counts]:
        if self._mean is None:
            return self._last
        used, streams = self._mean
        kinds = {*streams, *window.streams}
        mean = {kind: _towards(streams.get(kind, 0), window.streams.get(kind, 0), _MEMORY) for kind in kinds}
        # A kind whose calls are long gone is forgotten.
        return _towards(used, window.used, _MEMORY), {kind: count for kind, count in mean.items() if count > 0.01}

    def _learn(self, window: Window) -> None:
        calls = sum(window.streams.values())
        if window.begun:
            self._setup = _towards(self._setup, window.setup_s / window.begun, _CHEAPER)
        if not calls:
            self._fixed = _towards(self._fixed, max(0.0, window.used - window.setup_s / window.seconds), _MEMORY)
            return
        named = (sum(window.frames_s.values()) + window.setup_s) / window.seconds
        rest = max(0.0, window.used - self._fixed - named) / calls
        for kind, count in window.streams.items():
            if count <= 0:
                continue
            cost = window.frames_s.get(kind, 0.0) / window.seconds / count + rest
            known = self._costs.get(kind)
            if known is None:
                self._costs[kind] = cost
            elif cost > known:
                self._costs[kind] = _towards(known, cost, _DEARER)
            elif window.lag_s < _LATE_S:  # frames that were left out cost nothing, and would seem cheap
                self._costs[kind] = _towards(known, cost, _CHEAPER)

    def _correct(self, window: Window) -> None:
        if not window.due:
            self._strained = 0
            return
        self._strained = self._strained + 1 if window.lag_s > _LATE_S else 0
        if self._strained >= _STRAINED:
            self._strained = 0
            self.limit = max(_FLOOR, min(self.limit, _BACK * window.used))
        elif window.lag_s < _CALM_S:
            self.limit = min(_CEILING, self.limit + _UP_A_WINDOW)

    def _overload(self, window: Window) -> int:
        over = window.due > 0 and window.missed > _MISSED * window.due and window.used > _OWN_FAULT
        self._overloaded = self._overloaded + 1 if over else 0
        calls = math.floor(sum(window.streams.values()))
        if self._overloaded < _OVERLOADED or calls < 2:
            return 0
        # Half of what would do, because what others leave room for changes by itself too.
        return min(max(1, calls * window.missed // window.due // 2), math.ceil(calls / _SHARE_LEAVES), calls - 1)


def _towards(known: float, new: float, weight: float) -> float:
    return known + weight * (new - known)
