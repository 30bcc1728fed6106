"""The delay estimate of a jitter buffer: how much later than the quickest packets the late ones arrive.

NetEQ's way (libwebrtc, ``delay_manager`` and ``underrun_optimizer``): the delay of a packet relative to the quickest of
the last seconds, of each fifth of a second the worst, in a histogram that forgets; the answer is a quantile of it.
Three bad intervals in a row raise it, and it takes half a minute to fall: quick up, slow down. Clocks that drift apart
move the quickest packet, so they cancel out.

Pure: times are milliseconds of any two clocks of about the same speed.
"""

from __future__ import annotations

from msgspec import Struct

__all__ = ["LONGEST_MS", "Delay", "DelayState"]

LONGEST_MS = 180
_BUCKET_MS = 2
_INTERVAL_MS = 200.0
_WINDOW_MS = 2000.0
_FORGET = 0.983
_QUANTILE = 0.95
_HEAVY = 1e12


class DelayState(Struct, frozen=True, array_like=True):
    """The estimate as a value. Transit times are less what our clock showed, and of the histogram there is what is
    above nothing, as bucket and count."""

    quickest_ms: float
    wait_ms: float
    now: float
    before: float
    window_ms: float
    interval_ms: float
    worst: float
    counts: list[tuple[int, float]]
    total: float


class Delay:
    """The estimate. ``quickest_ms`` is the least difference of arrival and sending time; ``wait_ms`` is how long after
    that a packet is played."""

    def __init__(self) -> None:
        self.quickest_ms = 0.0
        self.wait_ms = float(_BUCKET_MS)
        self._now = self._before = 0.0  # the quickest of this window and of the one before
        self._window_at = self._interval_at = -1e18
        self._worst = -1.0
        self._counts = [0.0] * (LONGEST_MS // _BUCKET_MS)
        # New samples weigh more each time, which is the old ones weighing less without touching them.
        self._weight = 1.0
        self._total = 0.0

    def add(self, sent_ms: float, arrived_ms: float) -> None:
        """Takes in a packet that came for the first time, sent at ``sent_ms`` by its timestamp."""
        transit = arrived_ms - sent_ms
        if arrived_ms - self._window_at > _WINDOW_MS:
            # After a pause the old clock says nothing any more.
            self._before = self._now if arrived_ms - self._window_at < 2 * _WINDOW_MS else transit
            self._now = transit
            self._window_at = arrived_ms
            self.quickest_ms = min(self._before, transit)
        elif transit < self._now:
            self._now = transit
            if transit < self.quickest_ms:
                self.quickest_ms = transit
        late = transit - self.quickest_ms
        if late > LONGEST_MS + _BUCKET_MS:
            # Nobody waits that long. The sender's clock stood still, or everything behind this one comes at once.
            self._now = self._before = self.quickest_ms = transit
            return
        if late > self._worst:
            self._worst = late
        if arrived_ms - self._interval_at > _INTERVAL_MS:
            self._interval_at = arrived_ms
            self._remember(self._worst)
            self._worst = -1.0

    def _remember(self, late: float) -> None:
        place = min(int(late / _BUCKET_MS), len(self._counts) - 1)
        self._counts[place] += self._weight
        self._total += self._weight
        # The first samples are soon outweighed: what a call begins with is no guide.
        self._weight /= _FORGET
        if self._weight > _HEAVY:
            self._counts = [count / self._weight for count in self._counts]
            self._total /= self._weight
            self._weight = 1.0
        beyond = self._total * (1 - _QUANTILE)
        place = len(self._counts)
        while place > 1 and beyond >= 0:
            place -= 1
            beyond -= self._counts[place]
        self.wait_ms = float((place + 1) * _BUCKET_MS)

    # --- as a value

    def export(self, now_ms: float) -> DelayState:
        """All of it."""
        weight = self._weight
        return DelayState(
            self.quickest_ms - now_ms,
            self.wait_ms,
            *(self._now - now_ms, self._before - now_ms, now_ms - self._window_at, now_ms - self._interval_at),
            self._worst,
            [(at, count / weight) for at, count in enumerate(self._counts) if count],
            self._total / weight,
        )

    def take_up(self, state: DelayState, now_ms: float) -> None:
        """Goes on where ``export`` left off."""
        self.quickest_ms, self.wait_ms = state.quickest_ms + now_ms, state.wait_ms
        self._now, self._before = state.now + now_ms, state.before + now_ms
        self._window_at, self._interval_at = now_ms - state.window_ms, now_ms - state.interval_ms
        self._worst, self._total = state.worst, state.total
        for at, count in state.counts:
            self._counts[at] = count
