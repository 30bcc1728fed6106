"""The capacity of a process, learned from what it measured of itself: how many more calls it can take. Pure.

Once a second comes a ``Window``. Calls of a kind (an agent and a codec) cost the time that their frames took, and what
each adds to the rest, such as the reading of datagrams, which has a part that the first call costs and no other; the
work of setting calls up comes in bursts and is no call's. That is in seconds of a core; what it takes in time is more
by what the process waits for, such as a neighbour on its core, and changes with that from one second to the next.

What is in use, and what calls that were let in since will use, must stay below a limit. Where that is, lateness tells:
it goes down to below what was in use when frames were late, and comes back slowly while none are.

A process that cannot keep its calls on schedule all the same, because a neighbour has taken its core, has too many of
them. Then a few have to leave, so that the others can be served: slowly, because a pause of the machine looks the same.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import NamedTuple

from rtc.frame import FRAMES_PER_S

__all__ = ["CEILING", "Capacity", "Kind", "Window"]

CEILING = 0.75
"""The share of a core or of the loop's time that may be in use before more is known. One second differs from the next
by a sixth, and beyond 0.9 calls begin to cost more because they wait."""
# How far frames that are late, and frames that are missed, bring the limit down. A process that uses less is late for
# what others do, not for what it does.
_LATE_FLOOR, _MISSED_FLOOR = 0.5, 0.25
_BACK, _UP_A_WINDOW = 0.95, 0.01
# While the mean lag is below the first and what is in use is near the limit, that goes up as far as the second and as
# slowly as the third; beyond the fourth it goes down. A process that uses 0.6 of its core has a lag of six milliseconds
# already. One that uses the second, and a sixth more in its worst second, still has a core for it.
_EASY_S, _MOST, _MORE_A_WINDOW, _HARD_S = 0.008, 0.85, 0.01, 0.012
_NEAR = 0.08
# Where frames were missed, and once more within so many windows, the limit comes back to that a good deal more slowly:
# each try costs frames. Once, for no more than so many windows in a row, may have been a pause of the machine.
_TRIED_AGAIN, _REMEMBERED, _PAUSE = 0.002, 30, 2
# The 99th percentile of the lag: from the first no more, from the second on fewer. A machine that is not one's own has
# seconds below the first at any usage, and frames are missed from 25 ms on.
_LATE_S, _TOO_LATE_S = 0.014, 0.018
_STRAINED = 2  # windows in a row
_REOPENS_BELOW = 0.03  # that far under the limit, once it was reached
_MEMORY = 0.25  # weight of a window in what is remembered
_DEARER, _CHEAPER = 0.5, 0.25  # the same for costs
_FADES = 0.97  # what is left of a window, in the line through all of them, when the next has come
# What the rest is thought to be for no call, before windows show it, and for how many windows that counts.
_REST, _WEIGHT = 0.03, 2.0
_SLIGHT = 0.05  # so little of a core tells nothing of waits
_DRAWN_OUT_S = 3.0  # a window that lasted so long is no measurement: the process stood still
_SETUP_S = 0.01  # of a call, before one was measured
# Frames that were missed, and windows in a row in which as many were, before anybody leaves.
_MISSED, _OVERLOADED = 0.01, 3
_SOME_MISSED = 0.001  # of the frames of a window, which is more than is meant ever to be
_SHARE_LEAVES = 10  # one of so many in a window
_OWN_FAULT = 0.6  # used, below which fewer calls would help nobody, and a pause is the machine's

Kind = Hashable
Counts = Mapping[Kind, float]


class Window(NamedTuple):
    """What a process measured of itself in the last ``seconds``.

    ``used`` is the share of them for which the tightest of what it needs was taken, 0 to 1, and ``ran`` the share for
    which its loop ran; ``setup_s`` the part for the ``begun`` calls that were set up. ``made`` counts the frames that
    were made, by kind of call, and ``made_s`` is what these took. Of ``due`` frames ``missed`` were later than a frame
    lasts, or never made; ``lag_s`` is the 99th percentile of how late they were, or of how
    late what comes was read.
    """

    seconds: float
    used: float
    ran: float
    made: Counts = {}  # noqa: RUF012 - it is not changed
    made_s: Counts = {}  # noqa: RUF012
    setup_s: float = 0.0
    begun: int = 0
    due: int = 0
    missed: int = 0
    lag_s: float = 0.0

    @property
    def streams(self) -> Counts:
        """As many calls of each kind as make so many frames."""
        return {kind: frames / FRAMES_PER_S / self.seconds for kind, frames in self.made.items() if frames}


class Capacity:
    """What is known of a process. ``prior`` is the share of a core that a call of an unknown kind may cost. ``limit``
    is the share that may be in use, ``used`` what was, ``lag_s`` how late frames were in the last window."""

    def __init__(self, prior: float) -> None:
        self.limit, self._ceiling = CEILING, _MOST
        self.used = self.lag_s = 0.0
        self._prior = prior
        self._frames: dict[Kind, float] = {}  # what the frames of a call cost
        self._rest = _Line(_REST, _WEIGHT)
        self._setup = _SETUP_S
        self._fixed = 0.0
        # What was in use and by which calls, in the last window, and on average.
        self._last: tuple[float, Counts] = (0.0, {})
        self._mean: tuple[float, Counts] | None = None
        self._ran = 0.0
        self._full: set[Kind] = set()
        self._lag = 0.0  # on average
        self._strained = self._missing = self._overloaded = 0
        # Windows in a row in which frames were missed, windows since the last of them, and whether its calls missed
        # them rather than the machine.
        self._missed, self._on_time_for, self._own_fault = 0, _REMEMBERED, False

    def cost(self, kind: Kind) -> float:
        """The share of the time that a call of this kind takes now."""
        frames = self._frames.get(kind)
        return self._prior if frames is None else max((frames + self._rest.slope) * self._stretch, 1e-6)

    @property
    def _stretch(self) -> float:
        """How much longer things take than a core needs for them."""
        used, _ = self._mean or self._last
        return max(1.0, used / self._ran) if self._ran > _SLIGHT else 1.0

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
            self._ran = window.ran
            return self._last
        used, streams = self._mean
        self._ran = _towards(self._ran, window.ran, _MEMORY)
        kinds = {*streams, *window.streams}
        mean = {kind: _towards(streams.get(kind, 0), window.streams.get(kind, 0), _MEMORY) for kind in kinds}
        # A kind whose calls are long gone is forgotten.
        return _towards(used, window.used, _MEMORY), {kind: count for kind, count in mean.items() if count > 0.01}

    def _learn(self, window: Window) -> None:
        frames = sum(window.made.values())
        if window.missed > _MISSED * window.due:
            return  # frames that wait for others say nothing of what they cost
        if window.begun:
            self._setup = _towards(self._setup, window.setup_s / window.begun, _CHEAPER)
        # What was timed by the clock, as seconds of a core.
        ran = window.ran / max(window.ran, window.used, 1e-9) / window.seconds
        setup = window.setup_s * ran
        if not frames:
            self._fixed = _towards(self._fixed, max(0.0, window.ran - setup), _MEMORY)
        if frames < FRAMES_PER_S * window.seconds:
            return
        for kind, count in window.made.items():
            if count:
                cost = FRAMES_PER_S * window.seconds * ran * window.made_s.get(kind, 0.0) / count
                known = self._frames.get(kind, cost)
                self._frames[kind] = _towards(known, cost, _DEARER if cost > known else _CHEAPER)
        rest = window.ran - self._fixed - setup - sum(window.made_s.values()) * ran
        self._rest.add(frames / FRAMES_PER_S / window.seconds, max(0.0, rest))

    def _correct(self, window: Window) -> None:
        if not window.due:
            self._strained = 0
            return
        self._ceiling = min(_MOST, self._ceiling + (_TRIED_AGAIN if self._own_fault else _UP_A_WINDOW))
        long = self._missing >= _OVERLOADED
        missed = window.missed > _SOME_MISSED * window.due
        # A window in which frames were missed brings the ceiling down, and not the limit by its lag as well.
        late_s = min(window.lag_s, _LATE_S if missed else 2 * _LATE_S)
        self._lag = _towards(self._lag, late_s, _MEMORY)
        self._strained = self._strained + 1 if window.lag_s > _LATE_S and not missed else 0
        used, streams = self._mean or self._last
        # What came to be in use in one window says less than what its calls use, of which many may be new.
        by_calls = used + max(0.0, self._unmeasured(window.streams, streams))
        self._judge(missed)
        if missed:
            self._ceiling = min(self._ceiling, max(_MISSED_FLOOR if long else _OWN_FAULT, _BACK * by_calls))
        elif self._strained >= _STRAINED:
            back = _BACK if window.lag_s > _TOO_LATE_S else 1.0
            by_calls = max(window.used, by_calls)
            self.limit = min(self.limit, max(_MISSED_FLOOR if long else _LATE_FLOOR, back * by_calls))
        elif self._lag > _HARD_S and used > _OWN_FAULT:
            self.limit = min(self.limit, max(_LATE_FLOOR, self.limit - _UP_A_WINDOW))
        elif self.limit < CEILING and not self._strained:
            self.limit = min(CEILING, self.limit + _UP_A_WINDOW)
        elif self._lag < _EASY_S and used > self.limit - _NEAR:
            self.limit += _MORE_A_WINDOW
        self.limit = min(self.limit, self._ceiling)

    def _judge(self, missed: bool) -> None:
        """Takes note of whether frames of one more window were missed, and whether the calls are too many for that."""
        if not missed:
            self._missed, self._on_time_for = 0, self._on_time_for + 1
            return
        self._missed += 1
        if self._missed == 1:
            self._own_fault = self._on_time_for < _REMEMBERED
        elif self._missed > _PAUSE:
            self._own_fault = True
        self._on_time_for = 0

    def _overload(self, window: Window) -> int:
        self._missing = self._missing + 1 if window.missed > _MISSED * window.due else 0
        self._overloaded = self._overloaded + 1 if self._missing and window.used > _OWN_FAULT else 0
        calls = round(window.due / FRAMES_PER_S / window.seconds)
        if self._overloaded < _OVERLOADED or calls < 2:
            return 0
        # Half of what would do, because what others leave room for changes by itself too.
        return min(max(1, calls * window.missed // window.due // 2), math.ceil(calls / _SHARE_LEAVES), calls - 1)


class _Line:
    """The line through points that fade: what ``y`` grows by with ``x``, which is not negative. It begins with a point
    (0, ``y``) that does not fade."""

    def __init__(self, y: float, weight: float) -> None:
        self._first = weight, weight * y
        self._w = self._x = self._y = self._xx = self._xy = 0.0

    def add(self, x: float, y: float) -> None:
        for name, value in (("_w", 1.0), ("_x", x), ("_y", y), ("_xx", x * x), ("_xy", x * y)):
            setattr(self, name, _FADES * getattr(self, name) + value)

    @property
    def slope(self) -> float:
        """Between a quarter of the mean of y / x and all of it, because points that are near to one another say little
        of a line."""
        weight, y = self._first
        w, y = weight + self._w, y + self._y
        spread = w * self._xx - self._x * self._x
        if spread <= 0:
            return 0.0
        mean = self._y / self._x
        return min(max((w * self._xy - self._x * y) / spread, mean / 4), mean)


def _towards(known: float, new: float, weight: float) -> float:
    return known + weight * (new - known)
