"""The reports of a transceiver process: what edges learn of it, over their links and from the directory's store."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from runtime.config import Config
from transceiver.counters import ENGINE_WAITING
from transceiver.models import Models
from transceiver.turns import TURNS
from wire.report import Gpu, Model, Report
from wire.versions import software

__all__ = ["Reporting"]

_FRESH_S = 0.5  # for which one report serves all who ask


class Reporting:
    """The reports of one process. ``gpus`` gives those of its host."""

    def __init__(self, config: Config, gpus: Callable[[], tuple[Gpu, ...]] = tuple) -> None:
        self._config = config.transceiver
        self._models = Models(config.transceiver.agent, config.agents.versions)
        self._gpus = gpus
        self._generation = secrets.randbits(63)
        self._number = 0
        self._last: Report | None = None
        self._made_at = 0.0

    def make(
        self,
        now: float,
        *,
        sessions: int,
        draining: bool = False,
        room: Callable[[], Mapping[str, int]] = dict,
        lag_ms: float = 0.0,
    ) -> Report:
        """The report of ``now`` (seconds, monotonic), or of a moment before. ``room`` tells how many more calls of each
        model can be taken, where that is known."""
        last = self._last
        if last is not None and now - self._made_at < _FRESH_S and last.draining == draining:
            return last
        self._number += 1
        self._made_at = now
        rooms = room()
        ours = self._config
        self._last = Report(
            id=ours.id,
            endpoint=str(ours.advertise or ours.endpoint),
            generation=self._generation,
            number=self._number,
            sessions=sessions,
            most=ours.max_sessions,
            models=tuple(self._model(*each, rooms, now) for each in self._models.versions.items()),
            lag_ms=lag_ms,
            region=ours.region,
            zone=ours.zone,
            draining=draining,
            gpus=self._gpus(),
            software=software(),
            engine=max(0, ENGINE_WAITING.total()),
        )
        return self._last

    def _model(self, name: str, version: str, room: Mapping[str, int], now: float) -> Model:
        waiting = TURNS.waiting(name, now)
        return Model(name, version, room.get(name), waiting.turns, waiting.latency_ms)
