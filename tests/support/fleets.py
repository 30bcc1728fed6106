"""Fleets of transceivers that report, for the placing of calls on them."""

from __future__ import annotations

import random

from edge.placement.fleet import Fleet
from edge.placement.placer import Placer
from edge.placement.score import POLICIES
from wire.report import Model, Report

__all__ = ["a_report", "fleet_of", "placer_of"]


def a_report(
    number: int,
    sessions: int = 0,
    room: int | None = 50,
    *,
    models: tuple[str, ...] = ("parrot",),
    version: str = "",
    latency_ms: float | None = 200.0,
    queue: int = 0,
    region: str = "",
    draining: bool = False,
    most: int = 0,
) -> Report:
    listed = tuple(
        Model(name=name, version=version, room=room, queue=queue, latency_ms=latency_ms if latency_ms else None)
        for name in models
    )
    return Report(id=number, sessions=sessions, most=most, models=listed, region=region, draining=draining)


def fleet_of(*reports: Report, at_s: float = 0.0, round_trip_s: float | None = 0.01) -> Fleet:
    fleet = Fleet()
    for i, report in enumerate(reports):
        fleet.put(report, at_s + i * 1e-6, round_trip_s)
    return fleet


def placer_of(fleet: Fleet, policy: str = "latency", seed: int = 1) -> Placer:
    return Placer(fleet, POLICIES[policy], random.Random(seed))
