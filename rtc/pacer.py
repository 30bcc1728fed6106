"""The clock of everything that is sent: it calls each stream every 20 ms, on a schedule that does not drift.

Streams share a few phases of the 20 ms. Every phase that is used wakes this process and those that its datagrams pass
through, so there are not many, and one is filled before the next is begun; but not so full that its last frame is late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from rtc.frame import FRAME_S
from runtime.families import media
from runtime.histogram import Histogram
from runtime.metrics import Tally

__all__ = ["Pacer"]

_PHASES = 5
_PHASE_S = FRAME_S / _PHASES
_ROOMY = 10  # streams in a phase; each takes about 0.1 ms
_HOPELESS_S = 0.2
_LATE_S = 0.005  # what every receiver's jitter buffer makes up for
_MISSED_S = _LATE_S + FRAME_S

Tick = Callable[[], None]


class Pacer:
    """Calls every ``tick()`` 50 times a second from the running loop; nothing runs while there is none.

    ``worst_late_ms`` is how late the process itself has been. After a short stall everything due is made up for;
    after more than 200 ms the frames are skipped, because a burst of old ones would help nobody.

    ``frames`` counts those that were made within 5 ms of when they were due, later, or never; ``lag`` is how long after
    its time a phase was done. No frame is early: an agent's speech waits for its phase. ``missed`` counts the frames
    that were later than a frame lasts, or never made.

    ``before`` is called each time that frames are due, before them.

    ``made`` counts the frames by the kind that their streams were added as, and ``made_s`` has the seconds that they
    took.
    """

    def __init__(self) -> None:
        self.worst_late_ms = 0.0
        self.frames = Tally(media.SCHEDULE)
        self.lag = Histogram(media.LAG)
        self.recent = self.lag.of("media")
        self.missed = 0
        self.before: set[Callable[[], None]] = set()
        self.made: dict[Hashable, int] = {}
        self.made_s: dict[Hashable, float] = {}
        self._phases: list[dict[Tick, Hashable]] = [{} for _ in range(_PHASES)]
        self._step = 0
        self._origin = 0.0
        self._timer: asyncio.Handle | None = None
        self._running = False
        self._done = -1  # the last step

    def add(self, tick: Tick, kind: Hashable = None, *, due: float | None = None) -> None:
        """Has ``tick`` called every 20 ms from now on. Where the time matters, ``due`` is the first, give or take 2 ms:
        in seconds of the loop's clock, and not past."""
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._origin = loop.time() if due is None else due
            self._step, self._done = 0, -1
        if due is None:
            phase = min(range(_PHASES), key=self._unsuited)
        else:
            phase = round((due - self._origin) / _PHASE_S) % _PHASES
        self._phases[phase][tick] = kind
        self.made.setdefault(kind, 0)
        self.made_s.setdefault(kind, 0.0)
        if self._timer is None:
            self._timer = loop.call_at(self._origin, self._run)
        elif due is not None and not self._running:
            self._begin_by(round((due - self._origin) / _PHASE_S))

    def _begin_by(self, step: int) -> None:
        """Sees to it that the clock does not sleep through ``step``, whose phase nobody used. What was done is not done
        again."""
        step += max(0, -(-(self._done + 1 - step) // _PHASES)) * _PHASES
        if step < self._step and self._timer is not None:
            self._timer.cancel()
            self._step = step
            self._timer = asyncio.get_running_loop().call_at(self._origin + step * _PHASE_S, self._run)

    def _unsuited(self, phase: int) -> tuple[bool, int, int]:
        """The sort key of a phase for the next stream; the least is best. A phase in use that has room goes first, then
        the emptiest; among equals, one that is not the neighbour of the last."""
        streams = len(self._phases[phase])
        roomy = 0 < streams < _ROOMY
        return not roomy, 0 if roomy else streams, phase * 2 % _PHASES

    def behind(self) -> float:
        """The seconds by which the next frames are overdue; 0 where none are."""
        if self._timer is None:
            return 0.0
        return max(0.0, asyncio.get_running_loop().time() - (self._origin + self._step * _PHASE_S))

    def rename(self, tick: Tick, kind: Hashable) -> None:
        """Counts the frames of ``tick`` as another kind's from now on. Nothing happens when it is not there."""
        for phase in self._phases:
            if tick in phase:
                phase[tick] = kind
                self.made.setdefault(kind, 0)
                self.made_s.setdefault(kind, 0.0)

    def remove(self, tick: Tick) -> None:
        """Has ``tick`` called no more. Nothing happens when it was not there."""
        for phase in self._phases:
            phase.pop(tick, None)
        if self._timer is not None and not any(self._phases):
            self._timer.cancel()
            self._timer = None

    def _call(self, tick: Tick) -> None:
        try:
            tick()
        except Exception as e:
            # The others' clock must go on; who fails once would fail fifty times a second.
            self.remove(tick)
            context = {"message": "a paced stream failed and is stopped", "exception": e}
            asyncio.get_running_loop().call_exception_handler(context)

    def _prepare(self) -> None:
        for prepare in tuple(self.before):
            try:
                prepare()
            except Exception as e:
                context = {"message": "what is done before frames failed", "exception": e}
                asyncio.get_running_loop().call_exception_handler(context)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = now - (self._origin + self._step * _PHASE_S)
        if late > _HOPELESS_S:
            self.worst_late_ms = max(self.worst_late_ms, late * 1000)
            # A whole number of frames, so that nobody's place among the phases changes.
            skipped = int(late / FRAME_S) * _PHASES
            self._step += skipped
            frames = skipped // _PHASES * sum(map(len, self._phases))
            self.frames["skipped"] += frames
            self.missed += frames
        due = self._origin + self._step * _PHASE_S
        phase = self._phases[self._step % _PHASES]
        self._done = self._step
        self._step += 1
        if phase:
            self.worst_late_ms = max(self.worst_late_ms, (now - due) * 1000)
            if self.before:
                self._prepare()
                now = loop.time()
            ticks, clock, made, made_s = tuple(phase.items()), loop.time, self.made, self.made_s
            self._running = True
            for tick, kind in ticks:
                self._call(tick)
                before, now = now, clock()
                made[kind] += 1
                made_s[kind] += now - before
            self._running = False
            lag = now - due
            self.frames["on_time" if lag <= _LATE_S else "late"] += len(ticks)
            if lag > _MISSED_S:
                self.missed += len(ticks)
            self.recent.add(round(1e9 * lag))
        # One phase in a turn of the loop, also when the next is due already: a process that has too much to do would
        # otherwise never again read what comes.
        if not any(self._phases):
            self._timer = None
            return
        while not self._phases[self._step % _PHASES]:
            self._step += 1
        self._timer = loop.call_at(self._origin + self._step * _PHASE_S, self._run)
