"""The simulation of a day: calls come, are placed by one way of placing, wait, talk and end. Event driven, without a
clock.

The time to first audio of a call, in milliseconds, is made of

- each transceiver that was asked: two round trips where it refuses (does it live, may I), half a second where it is
  dead;
- the one that took the call: 5.5 round trips, as measured (``edge.placement.score``);
- its core: setup is 7.3 ms of work, done one call after the other, and slower by what media leaves of the core: all of
  it at no call, a tenth at its capacity. Beside 50 calls of 105 that gives 12.8 ms; 12.6 were measured;
- the agent: its time, longer from 70 % of the capacity on (``bench.placement.world``), different from turn to turn.

A transceiver takes no more than its capacity, so what was measured beyond (60 calls were late by 6 ms at p99 on a core
on which 80 lost 11 % of all frames, and 100 lost 53 %) does not occur: it is why ``full`` is an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bench.placement.strategies import LAGS_S, Snapshot, Strategy
from bench.placement.world import MODELS, World, agent_factor

__all__ = ["Day", "Plan", "simulate"]

TICK_S = 0.1
WORK_MS, BUSY_WHEN_FULL = 7.3, 0.9
ROUND_TRIPS, ASKING = 5.5, 2.0
DEAD_MS = 500.0
DEADLINE_MS = 5000.0
MOST_TRIES = 64
_TURN_SIGMA = 0.25  # of an agent's time, from turn to turn

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """A day of ``day_s`` seconds, calls of ``call_s`` on average; so many of the transceivers die in it, each for
    ``dead_s``, and so many drain for as long."""

    day_s: float
    call_s: float
    die: float = 0.05
    drain: float = 0.05
    dead_s: float = 20.0
    seed: int = 1


@dataclass
class Day:
    """The outcome. ``waited_ms`` and ``at`` (0 to 1, UTC) are by call that was placed, in their order."""

    waited_ms: Floats
    at: Floats
    calls: int
    refused: int
    refused_with_room: int
    asked_again: int
    dead_asked: int
    cut: int
    spread: float
    used: float
    hours: list[float] = field(default_factory=list)


def simulate(world: World, strategy: Strategy, plan: Plan, tell: Callable[[float], None]) -> Day:
    """Runs the day, which begins with the calls that are there at midnight. ``tell`` hears how far it is (0 to 1)."""
    run = _Run(world, strategy, plan)
    run.fill()
    ticks = round(plan.day_s / TICK_S)
    per_second = round(1 / TICK_S)
    for tick in range(ticks):
        if tick % per_second == 0:
            run.second(tick // per_second)
            if tick % (20 * per_second) == 0:
                tell(tick / ticks)
        run.tick(tick, tick / ticks)
    return run.day()


class _Run:
    def __init__(self, world: World, strategy: Strategy, plan: Plan) -> None:
        self.world, self.strategy, self.plan = world, strategy, plan
        self.chance = np.random.default_rng(plan.seed)
        size = len(world.capacity)
        self.capacity: list[int] = world.capacity.tolist()
        self.region: list[int] = world.region.tolist()
        self.ways: list[list[float]] = world.round_trip_ms.tolist()
        self.edge_region: list[int] = world.edge_region.tolist()
        self.agent: list[float] = world.agent_ms.tolist()
        self.active = [0] * size
        self.free_ms = [0.0] * size  # when the core has done the setups that it has
        self.alive = [True] * size
        self.draining = [False] * size
        self.life = [0] * size
        self.heard_s = np.zeros(size)
        self.ends: list[list[tuple[int, int]]] = [[] for _ in range(round(8 * plan.call_s / TICK_S) + 1)]
        self.history: list[Snapshot] = []
        self.waited: list[float] = []
        self.at: list[float] = []
        self.calls = self.refused = self.refused_with_room = self.again = self.dead_asked = self.cut = 0
        self.spreads: list[float] = []
        self.useds: list[float] = []
        self._fates()

    def _fates(self) -> None:
        """Who dies and drains in which second, and comes back when."""
        plan, size = self.plan, len(self.capacity)
        self.fates: dict[int, list[tuple[int, str]]] = {}
        for share, begins, over in ((plan.die, "dies", "lives"), (plan.drain, "drains", "takes")):
            for row in np.flatnonzero(self.chance.random(size) < share).tolist():
                second = int(self.chance.random() * plan.day_s)
                self.fates.setdefault(second, []).append((row, begins))
                self.fates.setdefault(second + round(plan.dead_s), []).append((row, over))

    def fill(self) -> None:
        """The calls of midnight, each in its own region and evenly."""
        demand = np.bincount(self.world.edge_region, weights=self.world.demand(0.0))
        for region, calls in enumerate(demand):
            rows = np.flatnonzero(self.world.region == region)
            if not len(rows):
                continue
            share = min(0.95, calls / self.world.capacity[rows].sum())
            for row in rows.tolist():
                for left_s in self.chance.exponential(self.plan.call_s, int(share * self.capacity[row])):
                    self._begin(row, 0, left_s)

    def _begin(self, row: int, tick: int, lasts_s: float) -> None:
        self.active[row] += 1
        ticks = min(len(self.ends) - 1, 1 + int(lasts_s / TICK_S))
        self.ends[(tick + ticks) % len(self.ends)].append((row, self.life[row]))

    def second(self, second: int) -> None:
        for row, fate in self.fates.get(second, ()):
            if fate == "dies":
                self.alive[row] = False
                self.life[row] += 1
                self.cut += self.active[row]
                self.active[row] = 0
            elif fate == "lives":
                self.alive[row] = True
                self.free_ms[row] = 0.0
            else:
                self.draining[row] = fate == "drains"
        alive = np.array(self.alive)
        sessions = np.array(self.active)
        used = sessions / self.world.capacity
        latency = self.world.agent_ms * agent_factor(used)
        self.heard_s[alive] = second
        self.history.append(Snapshot(sessions, latency, alive, np.array(self.draining), self.heard_s.copy()))
        for lag, lag_s in enumerate(LAGS_S):
            self.strategy.snapshot(lag, float(second), self.history[max(0, len(self.history) - 1 - lag_s)])
        del self.history[: -max(LAGS_S) - 1]
        fit = alive & ~np.array(self.draining)
        self.useds.append(float(used[fit].mean()))
        self.spreads.append(float(used[fit].std()))

    def tick(self, tick: int, day: float) -> None:
        ending = self.ends[tick % len(self.ends)]
        for row, life in ending:
            if self.life[row] == life:
                self.active[row] -= 1
        ending.clear()
        rate = self.world.demand(day) / self.plan.call_s * TICK_S
        coming = self.chance.poisson(rate)
        edges = np.repeat(np.arange(len(coming)), coming)
        self.chance.shuffle(edges)
        count = len(edges)
        models = self.chance.choice(len(MODELS), count, p=[asked for _, _, asked in MODELS])
        lasts = self.chance.exponential(self.plan.call_s, count)
        turns = self.chance.lognormal(0.0, _TURN_SIGMA, count)
        now_s = tick * TICK_S
        each = zip(edges.tolist(), models.tolist(), lasts.tolist(), turns.tolist(), strict=True)
        for i, (edge, model, lasts_s, turn) in enumerate(each):
            self._call(edge, model, lasts_s, turn, tick, now_s + TICK_S * i / count, day)

    def _call(self, edge: int, model: int, lasts_s: float, turn: float, tick: int, now_s: float, day: float) -> None:
        self.calls += 1
        waited, tries = 0.0, 0
        ways, settled = self.ways[self.edge_region[edge]], self.strategy.settled
        for row in self.strategy.order(edge, model, now_s):
            tries += 1
            if tries > MOST_TRIES or waited > DEADLINE_MS:
                settled(edge, row, "full")
                break
            way = ways[self.region[row]]
            if not self.alive[row]:
                waited += DEAD_MS
                self.dead_asked += 1
                settled(edge, row, "silent")
                continue
            if self.draining[row] or self.active[row] >= self.capacity[row]:
                waited += ASKING * way
                self.again += 1
                settled(edge, row, "full")
                continue
            settled(edge, row, "placed")
            used = self.active[row] / self.capacity[row]
            arrives = 1000 * now_s + waited
            begins = max(arrives, self.free_ms[row])
            done = self.free_ms[row] = begins + WORK_MS / (1 - BUSY_WHEN_FULL * used)
            slower = 1 + max(0.0, (used - 0.7) / 0.3)
            self.waited.append(waited + ROUND_TRIPS * way + done - arrives + self.agent[row] * slower * turn)
            self.at.append(day)
            self._begin(row, tick, lasts_s)
            return
        self.refused += 1
        self.refused_with_room += self._somebody_has_room(model)

    def _somebody_has_room(self, model: int) -> bool:
        fit = np.array(self.alive) & ~np.array(self.draining) & (np.array(self.active) < self.world.capacity)
        return bool((fit & self.world.has[model]).any())

    def day(self) -> Day:
        return Day(
            waited_ms=np.array(self.waited),
            at=np.array(self.at),
            calls=self.calls,
            refused=self.refused,
            refused_with_room=self.refused_with_room,
            asked_again=self.again,
            dead_asked=self.dead_asked,
            cut=self.cut,
            spread=float(np.mean(self.spreads)),
            used=float(np.mean(self.useds)),
        )
