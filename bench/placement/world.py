"""The world of the simulation: regions and the ways between them, transceivers, edges, and how many call when.

Capacities lie between what was measured of two machines of one cloud: 60 transcoded calls on a core of a Xeon, 130 on
one of an EPYC. How long an agent takes is assumed: three generations of GPUs, and a time that doubles from 70 % of the
capacity to all of it, as queues do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["EDGE_MODELS", "MODELS", "PEAK", "REGIONS", "World", "agent_factor", "make_world"]

# Where clouds have regions: name, latitude, longitude, and share of the callers and of the transceivers.
REGIONS = (
    ("virginia", 39, -77, 12),
    ("ohio", 40, -83, 6),
    ("oregon", 45, -120, 7),
    ("california", 37, -121, 7),
    ("texas", 32, -97, 5),
    ("montreal", 45, -73, 3),
    ("saopaulo", -23, -46, 6),
    ("ireland", 53, -6, 5),
    ("london", 51, 0, 6),
    ("frankfurt", 50, 8, 8),
    ("stockholm", 59, 18, 2),
    ("milan", 45, 9, 3),
    ("bahrain", 26, 50, 2),
    ("mumbai", 19, 72, 8),
    ("singapore", 1, 103, 5),
    ("jakarta", -6, 106, 3),
    ("tokyo", 35, 139, 7),
    ("seoul", 37, 126, 3),
    ("sydney", -33, 151, 2),
    ("capetown", -33, 18, 1),
)
# Name, share of the transceivers that have it, share of the calls that ask for it.
MODELS = (("all", 1.0, 0.80), ("some", 0.3, 0.17), ("few", 0.06, 0.03))
EDGE_MODELS = tuple(name for name, _, _ in MODELS)
PEAK = 1.2  # of a region's own capacity, at its busiest hour: the rest has to go elsewhere
_QUIET = 0.25  # of that at its quietest
_KM_A_MS = 200.0 / 2  # light in glass, there and back
_DETOUR, _LEAST_MS = 1.4, 1.0
_EARTH_KM = 6371.0

Floats = npt.NDArray[np.float64]


@dataclass
class World:
    """The fleet and its edges. ``round_trip_ms`` is by region and region; ``has`` says by model and transceiver who has
    it; the others are by transceiver, but for ``edge_region``."""

    round_trip_ms: Floats
    region: npt.NDArray[np.int64]
    capacity: npt.NDArray[np.int64]
    agent_ms: Floats
    has: npt.NDArray[np.bool_]
    edge_region: npt.NDArray[np.int64]

    def demand(self, day: float) -> Floats:
        """The calls at once that the edges' callers want, by edge, at the moment ``day`` (0 to 1, UTC)."""
        longitude = np.array([region[2] for region in REGIONS])
        local = (day + longitude / 360) % 1
        wave = _QUIET + (1 - _QUIET) * (0.5 + 0.5 * np.cos(2 * np.pi * (local - 20 / 24))) ** 2
        room = np.bincount(self.region, weights=self.capacity, minlength=len(REGIONS))
        edges = np.bincount(self.edge_region, minlength=len(REGIONS))
        wanted: Floats = (PEAK * wave * room / edges)[self.edge_region]
        return wanted


def make_world(transceivers: int, edges: int, seed: int) -> World:
    """A world, the same for the same seed."""
    chance = np.random.default_rng(seed)
    latitude, longitude, share = (np.array([r[i] for r in REGIONS], float) for i in (1, 2, 3))
    region = np.sort(chance.choice(len(REGIONS), transceivers, p=share / share.sum()))
    has = np.array([chance.random(transceivers) < of for _, of, _ in MODELS])
    return World(
        round_trip_ms=_ways(np.radians(latitude), np.radians(longitude)),
        region=region,
        capacity=chance.integers(60, 131, transceivers),
        agent_ms=chance.choice([180.0, 250.0, 400.0], transceivers, p=[0.3, 0.5, 0.2]),
        has=has,
        edge_region=np.arange(edges) % len(REGIONS),
    )


def agent_factor(used: Floats) -> Floats:
    """How much longer an agent takes when so much of its transceiver's capacity is ``used`` (0 to 1)."""
    return 1 + np.clip((used - 0.7) / 0.3, 0, 1)


def _ways(latitude: Floats, longitude: Floats) -> Floats:
    """Round trips between regions: along a great circle, with a detour, at the speed of light in glass."""
    a = np.sin((latitude[:, None] - latitude) / 2) ** 2
    b = np.cos(latitude[:, None]) * np.cos(latitude) * np.sin((longitude[:, None] - longitude) / 2) ** 2
    km = 2 * _EARTH_KM * np.arcsin(np.sqrt(np.clip(a + b, 0, 1)))
    ways: Floats = _LEAST_MS + _DETOUR * km / _KM_A_MS
    return ways
