"""Percentiles of what happened between two scrapes of a Prometheus histogram."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Latency", "between"]


@dataclass(frozen=True, slots=True)
class Latency:
    """The time that ``count`` things took, in milliseconds: half of them took at most ``p50_ms``, 99 of 100 at most
    ``p99_ms``."""

    count: int
    p50_ms: float
    p99_ms: float


def between(before: Mapping[str, float], after: Mapping[str, float]) -> Latency | None:
    """The latency between two scrapes, from the buckets (``le`` in seconds to how many were at most that); None where
    nothing happened. A process that was started again has fewer counts than before; then its counts since the start are
    taken."""
    bounds = sorted(after, key=float)
    if not bounds:
        return None
    if after[bounds[-1]] < before.get(bounds[-1], 0.0):
        before = {}
    counts = [after[bound] - before.get(bound, 0.0) for bound in bounds]
    if counts[-1] <= 0:
        return None
    at = [float(bound) for bound in bounds]
    return Latency(round(counts[-1]), *(round(1000 * _quantile(at, counts, q), 3) for q in (0.5, 0.99)))


def _quantile(bounds: list[float], counts: list[float], share: float) -> float:
    """The quantile, as if durations were spread evenly in their bucket; those beyond the last bound count as that."""
    wanted = share * counts[-1]
    lower, below = 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= wanted and count > below:
            return lower if bound == float("inf") else lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return lower
