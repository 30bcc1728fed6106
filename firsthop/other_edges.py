"""The other edges of the cluster, as the metrics of this host's signaling tell of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["OtherEdge", "other_edges"]


@dataclass(frozen=True, slots=True)
class OtherEdge:
    """Another edge. One that is ``well`` is named in answers; ``draining`` is what it said last, ``age_s`` seconds ago:
    None where it was never heard of."""

    name: str
    well: bool
    draining: bool
    age_s: float | None


def other_edges(samples: Mapping[tuple[str, ...], float]) -> list[OtherEdge]:
    """The edges in signaling's metrics, by name."""

    def of(metric: str) -> dict[str, float]:
        return {key[1]: value for key, value in samples.items() if key[0] == f"firsthop_signaling_edge_{metric}"}

    well, draining, ages_s = of("well"), of("draining"), of("age_seconds")
    return [OtherEdge(name, bool(well[name]), bool(draining.get(name)), ages_s.get(name)) for name in sorted(well)]
