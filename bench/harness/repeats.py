"""The repeats of a measurement: their medians, and the ratio or difference of two that took turns.

Two figures are compared within a repeat, where what else the machine did fell on both; the median is over repeats.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bench.harness.undisturbed import DISTURBED

__all__ = ["Repeats", "calm", "compared", "median", "rounded"]

Repeats = Mapping[int, Mapping[str, Any]]
"""The figures of each repeat, by its number; ``others`` is the share of a core that other processes took."""


def rounded(value: float) -> float:
    """Four digits of it."""
    return float(f"{value:.4g}")


def median(values: Iterable[float]) -> float | None:
    """The median of these, rounded; None where there are none."""
    found = list(values)
    return rounded(statistics.median(found)) if found else None


def calm(repeats: Iterable[int], *runs: Repeats) -> list[int]:
    """The repeats in which nobody disturbed these runs, or all where there is none."""
    both = [i for i in repeats if all(i in run for run in runs)]
    return [i for i in both if all(run[i]["others"] <= DISTURBED for run in runs)] or both


def compared(
    mine: Repeats, theirs: Repeats, how: Callable[[Mapping[str, Any], Mapping[str, Any]], float]
) -> float | None:
    """The median of ``how(mine, theirs)`` over the repeats that have both; None where there is none."""
    return median(how(mine[i], theirs[i]) for i in calm(mine, mine, theirs))
