"""The load of this process as it measures it, for ``transceiver.capacity`` to judge.

The tightest of three things counts. The *loop*: the time in which it had something to do. The *queue*: what its thread
ran and waited for a core (``/proc/thread-self/schedstat``). The *core*, where this process has one alone: what all of
its threads ran.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rtc.codecs.opus import Decoder, Encoder
from rtc.frame import FRAMES_PER_S, frame_bytes
from rtc.pacer import Pacer
from runtime.busy import BusySelector
from runtime.histogram import Durations
from transceiver.backlog import Backlog
from transceiver.capacity import Capacity, Kind, Window

__all__ = ["PRIOR", "Load", "calibrated"]

PRIOR = 0.02
"""The share of a core that a call may cost, where nobody has measured anything."""
_RATE_HZ = 24000
_TRIES = 25
_REST = 8  # a frame costs this many times what its codec does, at most: it was five to seven
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class Load:
    """The load of the event loop that this is made on: ``look`` at it once a second. It is late where frames are, or
    what is read: ``reading`` is how much too long that has waited. Where the capacity is ``fixed``, there is always
    room and nobody has to leave."""

    def __init__(
        self,
        pacer: Pacer,
        backlog: Backlog,
        reading: Durations,
        *,
        selector: BusySelector | None = None,
        prior: float = PRIOR,
        fixed: bool = False,
    ) -> None:
        self._pacer, self._backlog, self._reading, self._selector = pacer, backlog, reading, selector
        self._fixed = fixed
        self.capacity = Capacity(prior)
        self._begun = 0  # calls, since the last look
        self._pinned = len(os.sched_getaffinity(0)) == 1
        self._before: _Counted | None = None  # what came before the first look is the start of the process

    def room(self, kind: Kind, live: Mapping[Kind, int]) -> int | None:
        """The number of calls of this kind that there is room for beside those of ``live``; None where only
        ``max_sessions`` says so."""
        return None if self._fixed else self.capacity.room(kind, live, self._begun)

    def most(self, kind: Kind, live: Mapping[Kind, int], hard: int) -> int:
        """The number of calls, ``hard`` at most, that there may be now that one of this kind wants to come to those of
        ``live``. If it is let in, say ``begun``."""
        if self._fixed:
            return hard
        admitted = self.capacity.admits(kind, live, self._begun)
        room = self.capacity.room(kind, live, self._begun) if admitted else 0
        return min(hard, sum(live.values()) + room)

    def begun(self) -> None:
        """Takes note that a call was let in."""
        self._begun += 1

    def look(self) -> int:
        """Measures what has been since the last look. Returns the number of calls that have to leave."""
        before, now = self._before, self._now()
        self._before = now
        if before is None:
            return 0
        begun, self._begun = self._begun, 0
        seconds = now.at_s - before.at_s
        ran_s, queued_s, busy_s = now.ran_s - before.ran_s, now.queued_s - before.queued_s, now.busy_s - before.busy_s
        core_s = now.process_s - before.process_s if self._pinned else 0.0
        window = Window(
            seconds,
            used=min(1.0, max(busy_s, ran_s + queued_s, core_s) / seconds),
            ran=ran_s / seconds,
            made={kind: count - before.made.get(kind, 0) for kind, count in now.made.items()},
            made_s={kind: spent - before.made_s.get(kind, 0.0) for kind, spent in now.made_s.items()},
            setup_s=now.setup_s - before.setup_s,
            begun=begun,
            due=now.due - before.due,
            missed=now.missed - before.missed,
            lag_s=max(_late_s(self._pacer.recent, before.lag), _late_s(self._reading, before.read)),
        )
        leave = self.capacity.measured(window)
        return 0 if self._fixed else leave

    def _now(self) -> _Counted:
        ran_ns, queued_ns, _ = _SCHEDSTAT.read_text().split()
        pacer = self._pacer
        frames = pacer.frames
        return _Counted(
            at_s=time.perf_counter(),
            ran_s=int(ran_ns) / 1e9,
            queued_s=int(queued_ns) / 1e9,
            process_s=time.process_time(),
            busy_s=self._selector.busy_s if self._selector is not None else 0.0,
            made=dict(pacer.made),
            made_s=dict(pacer.made_s),
            setup_s=self._backlog.spent_s,
            due=sum(frames.values()),
            missed=pacer.missed,
            lag=tuple(pacer.recent.counts),
            read=tuple(self._reading.counts),
        )


class _Counted(NamedTuple):
    """Counters that only grow."""

    at_s: float
    ran_s: float
    queued_s: float
    process_s: float
    busy_s: float
    made: dict[Kind, int]
    made_s: dict[Kind, float]
    setup_s: float
    due: int
    missed: int
    lag: tuple[int, ...]
    read: tuple[int, ...]


def _late_s(lateness: Durations, since: Sequence[int]) -> float:
    return lateness.quantile_ns(0.99, since) / 1e9


@functools.cache
def calibrated() -> float:
    """The share of a core that a call may cost on this machine, from the time that one frame's codec takes."""
    encoder, decoder = Encoder(_RATE_HZ), Decoder(_RATE_HZ)
    noise = os.urandom(frame_bytes(_RATE_HZ))  # as dear as speech, and dearer
    took = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        decoder.decode(encoder.encode(noise))
        took.append(time.perf_counter() - began)
    return _REST * FRAMES_PER_S * median(took)
