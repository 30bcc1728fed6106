"""A histogram for what happens seldom, with the bounds that its family names: setups, first sounds, a look at each
call.

Values are in the family's unit, and any thread may add one (``runtime.histogram`` has what is counted for every batch).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from runtime.families.family import Family

__all__ = ["Distribution"]


class Distribution(Collector):
    """Counts in the buckets of ``family``, by the value of its label if it has one. Values of a label that are known
    beforehand are there from the beginning."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._names = [*map(floatToGoString, family.bounds), "+Inf"]
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        known = next(iter(family.labels.values()), ("",))
        for value in known if isinstance(known, tuple) else ():
            self._begin(value)

    def _begin(self, value: str) -> list[int]:
        counts = self._counts[value] = [0] * len(self._names)
        self._sums[value] = 0.0
        return counts

    def add(self, amount: float, value: str = "") -> None:
        """Counts one ``amount``, under the label's ``value`` where there is a label."""
        place = bisect_left(self._family.bounds, amount)
        with self._lock:
            counts = self._counts.get(value) or self._begin(value)
            counts[place] += 1
            self._sums[value] += amount

    def collect(self) -> Iterator[Metric]:
        family = self._family
        found = HistogramMetricFamily(family.name, family.means, labels=tuple(family.labels))
        with self._lock:
            copies = [(value, list(counts), self._sums[value]) for value, counts in self._counts.items()]
        for value, counts, total in copies:
            buckets, so_far = [], 0
            for name, count in zip(self._names, counts, strict=True):
                so_far += count
                buckets.append((name, so_far))
            found.add_metric([value] if family.labels else [], buckets, total)
        yield found
