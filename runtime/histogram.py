"""A histogram of durations for Prometheus: counts in buckets that are half an octave wide.

A duration finds its bucket by the length of its number, so that adding one costs a third of a microsecond and may be
done for every batch. Bounds are 1 and 1.5 times the powers of two from 8.2 us to 1.1 s; a percentile that is read out
of them is right to a few parts in ten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime.families.family import Family

__all__ = ["Durations", "Histogram"]

_FIRST, _LAST = 13, 30  # 2**13 ns is where the first bucket ends, 2**30 where the last but one does
_BOUNDS_NS = [1 << _FIRST, *(part << (octave - 1) for octave in range(_FIRST, _LAST) for part in (3, 4))]
_ABSURD_NS = 60_000_000_000


class Durations:
    """Counts of durations. A value that is negative or longer than a minute is no duration but comes of a clock that
    was set, or of a lie; it is counted in ``left_out`` alone."""

    __slots__ = ("counts", "left_out", "sum_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_NS) + 1)
        self.left_out = 0
        self.sum_ns = 0

    def add(self, ns: int) -> None:
        """Counts one duration, in nanoseconds."""
        if not 0 <= ns < _ABSURD_NS:
            self.left_out += 1
            return
        octave = ns.bit_length() - 1
        if octave < _FIRST:
            place = 0
        elif octave < _LAST:
            place = 1 + 2 * (octave - _FIRST) + (ns >> (octave - 1) & 1)
        else:
            place = -1
        self.counts[place] += 1
        self.sum_ns += ns

    def quantile_ns(self, share: float, since: Sequence[int]) -> float:
        """The duration that this share of those was at most that were added since ``counts`` were ``since``, as if they
        were spread evenly in their bucket; 0 where there were none."""
        added = [now - before for now, before in zip(self.counts, since, strict=True)]
        below, wanted = 0, share * sum(added)
        for lower, upper, count in zip((0, *_BOUNDS_NS), (*_BOUNDS_NS, _BOUNDS_NS[-1]), added, strict=True):
            if count and below + count >= wanted:
                return lower + (upper - lower) * (wanted - below) / count
            below += count
        return 0.0


class Histogram(Collector):
    """``Durations`` by the value of the family's label, as ``<name>_seconds``; ``<name>_left_out`` counts values that
    were no durations."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._durations: dict[str, Durations] = {}

    def of(self, value: str) -> Durations:
        """The durations under ``value``, which Prometheus sees from now on, even while there are none."""
        return self._durations.setdefault(value, Durations())

    def forget(self, value: str) -> None:
        """Removes what stands under ``value``."""
        self._durations.pop(value, None)

    def collect(self) -> Iterator[Metric]:
        family, labels = self._family, tuple(self._family.labels)
        what = f"Values that were no durations, and are not in {family.name}"
        times = HistogramMetricFamily(family.name, family.means, labels=labels)
        left_out = CounterMetricFamily(f"{family.name.removesuffix('_seconds')}_left_out", what, labels=labels)
        for value, durations in list(self._durations.items()):  # another thread makes and forgets them
            # Another thread goes on adding: one copy of the counts agrees with itself.
            counts, sum_ns = list(durations.counts), durations.sum_ns
            buckets, so_far = [], 0
            for bound, count in zip([*(f"{ns / 1e9:.9g}" for ns in _BOUNDS_NS), "+Inf"], counts, strict=True):
                so_far += count
                buckets.append((bound, so_far))
            times.add_metric([value], buckets, sum_ns / 1e9)
            left_out.add_metric([value], durations.left_out)
        yield times
        yield left_out
