"""The ways of placing that are compared: firsthop's own code, and four simpler ones with the same stale reports."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bench.placement.world import EDGE_MODELS, REGIONS, World
from edge.placement.fleet import Fleet
from edge.placement.placer import OLD_S, Placer, Wanted
from edge.placement.score import POLICIES
from wire.report import Model, Report

__all__ = ["LAGS_S", "OLD_S", "STRATEGIES", "Firsthop", "Snapshot", "Strategy", "first_reports"]

LAGS_S = (1, 2, 3)  # how old the reports are that an edge has; edge e has those of LAGS_S[e % 3]
_SILENT_S = 2.0

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Snapshot:
    """What all transceivers said at one moment, by transceiver. Those that are dead said something last at
    ``heard_s``."""

    def __init__(self, sessions: Ints, latency_ms: Floats, alive: Flags, draining: Flags, heard_s: Floats) -> None:
        self.sessions, self.latency_ms, self.alive, self.draining = sessions, latency_ms, alive, draining
        self.heard_s = heard_s


class Strategy(Protocol):
    """A way of placing, for all edges."""

    def snapshot(self, lag: int, now: float, said: Snapshot) -> None:
        """The edges whose lag is ``LAGS_S[lag]`` have this now."""

    def order(self, edge: int, model: int, now: float) -> Iterator[int]:
        """The transceivers to ask for a call."""

    def settled(self, edge: int, transceiver: int, outcome: str) -> None:
        """A transceiver that was asked took the call (``placed``), was ``full``, or ``silent``."""


def first_reports(world: World) -> list[Report]:
    """The reports of an empty fleet."""
    return [
        Report(
            id=i,
            endpoint=f"tcp://10.{i >> 16}.{i >> 8 & 255}.{i & 255}:7400",
            generation=(i + 1) << 40,
            number=1,
            most=200,
            region=REGIONS[int(world.region[i])][0],
            zone="a",
            software="firsthop 0.1.0",
            models=tuple(
                Model(name=name, version="0.1.0", room=int(world.capacity[i]), latency_ms=float(world.agent_ms[i]))
                for m, name in enumerate(EDGE_MODELS)
                if world.has[m, i]
            ),
        )
        for i in range(len(world.capacity))
    ]


class Firsthop:
    """The real placement code, a placer for each edge. Reports are entered once as they are on the wire; afterwards the
    numbers in the columns change together, for all edges that have the same ones."""

    def __init__(self, world: World, seed: int, policy: str = "latency") -> None:
        self._world = world
        self._wanted = [
            [Wanted(name, region=REGIONS[region][0]) for name in EDGE_MODELS] for region in range(len(REGIONS))
        ]
        reports = first_reports(world)
        self._fleets: list[Fleet] = []
        self._placers: list[Placer] = []
        self._edges: list[list[Fleet]] = []
        self._silent: list[dict[int, float]] = [{} for _ in world.edge_region]
        self._now = 0.0
        for _ in LAGS_S:
            fleet = Fleet()
            for report in reports:
                fleet.put(report, 0.0, 0.01)
            self._fleets.append(fleet)
            self._edges.append([])
        for edge, region in enumerate(world.edge_region):
            lag = edge % len(LAGS_S)
            mine = copy.copy(self._fleets[lag])
            rows = mine.round_trip_ms.copy()
            rows[: len(reports)] = world.round_trip_ms[region][world.region]
            mine.round_trip_ms = rows
            self._edges[lag].append(mine)
            self._placers.append(Placer(mine, POLICIES[policy], random.Random(seed * 1000 + edge)))  # noqa: S311

    def snapshot(self, lag: int, now: float, said: Snapshot) -> None:
        fleet, size = self._fleets[lag], len(said.sessions)
        alive = said.alive
        fleet.sessions[:size][alive] = said.sessions[alive]
        fleet.received_at[:size][alive] = now
        fleet.serial[:size][alive] += 1
        drains = bool((fleet.draining[:size] != said.draining).any())
        fleet.draining[:size] = said.draining
        room = np.maximum(self._world.capacity - said.sessions, 0)
        for offers in fleet.models.values():
            rows = offers.row[: offers.size]
            told = alive[rows]
            offers.room[: offers.size][told] = room[rows][told]
            offers.latency_ms[: offers.size][told] = said.latency_ms[rows][told]
        for mine in self._edges[lag]:
            mine.reports += 1
            mine.changes += drains

    def order(self, edge: int, model: int, now: float) -> Iterator[int]:
        placer, silent, late = self._placers[edge], self._silent[edge], list[int]()
        self._now = now
        for choice in placer.choices(self._wanted[self._world.edge_region[edge]][model], now):
            if silent and silent.get(choice.id, 0.0) > now:
                late.append(choice.id)
                continue
            placer.asked(choice.id)
            yield choice.id
        yield from self._late(placer, late)

    def _late(self, placer: Placer, late: list[int]) -> Iterator[int]:
        for number in late:
            placer.asked(number)
            yield number

    def settled(self, edge: int, transceiver: int, outcome: str) -> None:
        placer = self._placers[edge]
        if outcome == "placed":
            placer.placed(transceiver)
            return
        placer.failed(transceiver)
        if outcome == "full":
            placer.full(transceiver)
        else:
            self._silent[edge][transceiver] = self._now + _SILENT_S


class _Simple:
    """What the simpler ways share: each edge's last snapshot, those that have a model, do not drain and have been heard
    of, and the memory of those that were silent just now."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._chance = random.Random(seed)  # noqa: S311
        self._have: list[list[Ints]] = [[np.flatnonzero(has) for has in world.has] for _ in LAGS_S]
        self._silent: list[dict[int, float]] = [{} for _ in world.edge_region]
        self._now = 0.0

    def snapshot(self, lag: int, now: float, said: Snapshot) -> None:
        fit = ~said.draining & (said.heard_s > now - OLD_S)
        self._have[lag] = [np.flatnonzero(has & fit) for has in self._world.has]

    def order(self, edge: int, model: int, now: float) -> Iterator[int]:
        self._now, silent = now, self._silent[edge]
        have = self._have[edge % len(LAGS_S)][model]
        while len(have):
            row = int(have[self._place(edge, model, len(have))])
            if silent and silent.get(row, 0.0) > now:
                self._passed(edge, row, 100.0)
            else:
                yield row

    def settled(self, edge: int, transceiver: int, outcome: str) -> None:
        if outcome == "silent":
            self._silent[edge][transceiver] = self._now + _SILENT_S
        self._passed(edge, transceiver, 1 / self._world.capacity[transceiver] if outcome == "placed" else 100.0)

    def _place(self, edge: int, model: int, size: int) -> int:
        raise NotImplementedError

    def _passed(self, edge: int, transceiver: int, used: float) -> None:
        """The last one chosen has so much less room."""


class AtRandom(_Simple):
    """Any that has the model, and any other where that one refuses."""

    def _place(self, edge: int, model: int, size: int) -> int:
        return int(self._chance.random() * size)


class RoundRobin(_Simple):
    """The next that has the model; each edge has a turn of its own for each model."""

    def __init__(self, world: World, seed: int) -> None:
        super().__init__(world, seed)
        size = len(world.capacity)
        self._turn = [[self._chance.randrange(size) for _ in EDGE_MODELS] for _ in world.edge_region]

    def _place(self, edge: int, model: int, size: int) -> int:
        turn = self._turn[edge]
        turn[model] += 1
        return turn[model] % size


class LeastLoaded(_Simple):
    """The one with the smallest share of its capacity taken, by the report and by what this edge placed since."""

    def __init__(self, world: World, seed: int) -> None:
        super().__init__(world, seed)
        self._used = [[np.zeros(0, np.float32)] * len(EDGE_MODELS) for _ in world.edge_region]
        self._last: list[tuple[int, int]] = [(0, 0)] * len(world.edge_region)

    def snapshot(self, lag: int, now: float, said: Snapshot) -> None:
        super().snapshot(lag, now, said)
        for edge in range(lag, len(self._used), len(LAGS_S)):
            rank = self._rank(edge, said).astype(np.float32)
            self._used[edge] = [rank[have] for have in self._have[lag]]

    def _rank(self, edge: int, said: Snapshot) -> Floats:
        return said.sessions / self._world.capacity

    def _place(self, edge: int, model: int, size: int) -> int:
        place = int(self._used[edge][model].argmin())
        self._last[edge] = model, place
        return place

    def _passed(self, edge: int, transceiver: int, used: float) -> None:
        model, place = self._last[edge]
        self._used[edge][model][place] += used


class LeastLoadedNear(LeastLoaded):
    """The same within the nearest region that has one with room, by the report."""

    def _rank(self, edge: int, said: Snapshot) -> Floats:
        used = np.minimum(said.sessions / self._world.capacity, 0.999)
        full = said.sessions >= self._world.capacity
        distance = self._world.round_trip_ms[self._world.edge_region[edge]].argsort().argsort()
        rank: Floats = used + distance[self._world.region] + len(distance) * full
        return rank


STRATEGIES: dict[str, Callable[[World, int], Strategy]] = {
    "random": AtRandom,
    "round robin": RoundRobin,
    "least loaded": LeastLoaded,
    "least loaded nearby": LeastLoadedNear,
    "firsthop": Firsthop,
}
