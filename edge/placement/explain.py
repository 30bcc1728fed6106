"""The explanation of a placement: what would become of a call now, transceiver by transceiver. Pure."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np

from edge.placement.placer import Placer, Shortlist, Wanted

__all__ = ["MOST_SHOWN", "Candidate", "Explanation", "explain"]

MOST_SHOWN = 50


class Candidate(msgspec.Struct, frozen=True):
    """A transceiver. ``verdict`` is ``good`` for those of which two are drawn, ``fits`` for those that are asked after
    them, ``old report``, or what is wrong with it: ``full``, ``draining``, ``other version``, ``other region``."""

    id: int
    region: str
    version: str
    verdict: str
    score_ms: float
    network_ms: float
    agent_ms: float
    load_ms: float
    sessions: int
    capacity: int
    used: float
    age_s: float


class Explanation(msgspec.Struct, frozen=True):
    """What is known about ``model`` in ``version`` ("" for any): the best ``candidates``, those first that would be
    asked first, and the number of all by their verdicts. ``models`` are those that there are; ``silent`` have made no
    report and are asked by turns."""

    model: str
    policy: str
    region: str
    candidates: list[Candidate] = []
    verdicts: dict[str, int] = {}
    models: list[str] = []
    silent: list[int] = []
    version: str = ""

    @property
    def finds(self) -> bool:
        """Whether a call would be offered to somebody who may have room."""
        return bool(self.silent or {"good", "fits", "old report"} & self.verdicts.keys())


def explain(
    placer: Placer, wanted: Wanted, now: float, silent: tuple[int, ...] = (), most: int = MOST_SHOWN
) -> Explanation:
    """The explanation for a call that came ``now``, with at most ``most`` candidates."""
    fleet = placer.fleet
    about, names = (wanted.model, placer.policy.name, wanted.region), fleet.names[:MOST_SHOWN]
    shortlist = placer.shortlist(wanted, now, afresh=True)
    if shortlist is None:
        return Explanation(*about, models=names, silent=list(silent[:most]), version=wanted.version)
    verdicts = _verdicts(placer, shortlist, wanted)
    order = [place for name in _ORDER for place in shortlist.by_score(verdicts == _ORDER.index(name)).tolist()]
    candidates = [_candidate(placer, shortlist, wanted, place, _ORDER[verdicts[place]], now) for place in order[:most]]
    counts = Counter(_ORDER[verdict] for verdict in verdicts.tolist())
    shown = {name: counts[name] for name in _ORDER if counts[name]}
    return Explanation(*about, candidates, shown, names, list(silent[:most]), wanted.version)


_ORDER = ["good", "fits", "old report", "full", "draining", "other version", "other region"]


def _verdicts(placer: Placer, shortlist: Shortlist, wanted: Wanted) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    """The verdict on each place, as its index in ``_ORDER``."""
    fleet, row = placer.fleet, shortlist.row
    out = np.full(len(row), _ORDER.index("fits"), np.int8)
    out[shortlist.old] = _ORDER.index("old report")
    out[shortlist.good] = _ORDER.index("good")
    out[shortlist.full] = _ORDER.index("full")
    out[~shortlist.fits] = _ORDER.index("other region")
    if wanted.version:
        version = fleet.versions.find(wanted.version)
        out[fleet.models[wanted.model].version[: len(row)] != (-1 if version is None else version)] = _ORDER.index(
            "other version"
        )
    out[fleet.draining.take(row)] = _ORDER.index("draining")
    return out


def _candidate(placer: Placer, shortlist: Shortlist, wanted: Wanted, place: int, verdict: str, now: float) -> Candidate:
    fleet, row = placer.fleet, int(shortlist.row[place])
    fixed, score = float(shortlist.fixed_ms[place]), float(shortlist.score_ms[place])
    return Candidate(
        id=int(fleet.id[row]),
        region=fleet.regions[int(fleet.region[row])],
        version=fleet.versions[int(fleet.models[wanted.model].version[place])],
        verdict=verdict,
        score_ms=round(score, 1),
        network_ms=round(float(shortlist.network_ms[place]), 1),
        agent_ms=round(float(shortlist.agent_ms[place]), 1),
        load_ms=round(score - fixed, 1),
        sessions=int(shortlist.sessions[place]),
        capacity=int(shortlist.capacity[place]),
        used=round(float(shortlist.used[place]), 3),
        age_s=round(now - float(fleet.received_at[row]), 1),
    )
