"""The placer: for each call, the transceivers to ask, one after the other. Pure; time and chance are arguments.

Whatever does not fit is left out: another model, version or region, or about to leave. What fits and has room is scored
(``edge.placement.score``). Of those that are about equally good but for their load, a few are drawn, and the best of
these is asked first: load changes within a second, and edges that see the same report would all choose the transceiver
that looks emptiest. Scores are worked out a few times a second for each model; a call costs a draw.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from edge.placement.fleet import Fleet, Offers, grown
from edge.placement.score import Policy, agent_ms, load_ms, network_ms

__all__ = ["MOST_FULL", "OLD_S", "Choice", "Placer", "Shortlist", "Wanted"]

OLD_S = 5.0  # a report that has not come again for so long is of one that may be gone: others go before it
MOST_FULL = 3  # of those that said that they are full: a report is a second or three old
_AFRESH_S = 0.1  # so long a list serves while reports come
_KEPT_S = 1.0  # the same while none come
_MOST_LISTS = 64
_ROOMY = 0.9  # used share up to which a report of a few seconds ago still means room
_DRAWS = 8  # how often chance tries again, and how many are asked that it has chosen
_FAR_MS = 150.0  # round trip to another region, while none has been measured
_ELSEWHERE_MS = 100.0  # what the wish for a region weighs
_UNKNOWN_CAPACITY = 64.0
_DOUBT = 0.4  # the part of an agent's time that may be otherwise by now: it differs from turn to turn, and reports age
_REFUSED = 1e9  # so many own calls say that a transceiver has no room, whatever it reported

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call, as far as its placing goes: the model ("" for any) and its version ("" for any), the region that it would
    rather be in ("" for none), and those outside which it must not be (none for everywhere)."""

    model: str = ""
    version: str = ""
    region: str = ""
    within: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """A transceiver to ask. The milliseconds are those until the first sound, by cause; ``used`` is the share of its
    capacity; ``over`` is the other one of the draw, with its score."""

    id: int
    region: str
    score_ms: float
    network_ms: float
    agent_ms: float
    load_ms: float
    used: float
    why: str
    over: tuple[int, float] | None = None


class Shortlist:
    """The transceivers that have a model, scored at ``made_at``: columns by their places in the model's ``Offers``.
    ``fixed_ms`` is the part of the score that what is placed meanwhile does not change, and ``behind_ms`` what it is
    more than that of those that are alike; ``good`` are the places among which chance draws."""

    def __init__(self, placer: Placer, wanted: Wanted, now: float) -> None:
        fleet = placer.fleet
        offers = fleet.models[wanted.model]
        self.made_at = now
        self.changes, self.reports = (fleet.changes, offers.changes), fleet.reports
        size = offers.size
        self.row = row = offers.row[:size].copy()
        region = fleet.region.take(row)
        self.fits = ~fleet.draining.take(row)
        if wanted.version:
            self.fits &= offers.version[:size] == _number(fleet.versions.find(wanted.version))
        if wanted.within:
            allowed = [_number(fleet.regions.find(name)) for name in wanted.within]
            self.fits &= np.isin(region, allowed)
        self.old = fleet.received_at.take(row) < now - OLD_S
        self.sessions = fleet.sessions.take(row)
        room = np.fmin(offers.room[:size], fleet.most.take(row) - self.sessions)
        np.maximum(room, 0, out=room)
        self.capacity = self.sessions + room
        self.network_ms = network_ms(_round_trips(fleet.round_trip_ms.take(row), region))
        self.agent_ms = agent_ms(_known_or_mean(offers.latency_ms[:size]), offers.queue[:size])
        self.fixed_ms = self.network_ms + self.agent_ms
        if wanted.region:
            self.fixed_ms[region != _number(fleet.regions.find(wanted.region))] += _ELSEWHERE_MS
        own = placer.own(row)
        taken = self.sessions + own
        self.full = (taken >= self.capacity) | (own >= _REFUSED / 2)
        unknown = np.isinf(self.capacity)
        if unknown.any():
            self.capacity[unknown] = np.maximum(_UNKNOWN_CAPACITY, 2 * taken[unknown])
        np.maximum(self.capacity, 1, out=self.capacity)
        self.used = np.minimum(taken / self.capacity, 1)
        self.score_ms = self.fixed_ms + load_ms(self.used, placer.policy)
        fit = self.fits & ~self.full
        fresh = fit & ~self.old
        fit = fresh if fresh.any() else fit
        alike_ms = self.fixed_ms.min(initial=np.inf, where=fit) + placer.policy.alike_ms
        self.behind_ms = np.maximum(self.fixed_ms - alike_ms, 0)
        self.good: Places = np.flatnonzero(fit & (self.behind_ms <= _DOUBT * self.agent_ms))

    def by_score(self, which: Bools) -> Places:
        """The places of ``which``, the best first."""
        places = np.flatnonzero(which)
        order: Places = places[np.argsort(self.score_ms[places], kind="stable")]
        return order


def _number(found: int | None) -> int:
    return -1 if found is None else found


def _round_trips(measured_ms: Floats, region: npt.NDArray[np.int32]) -> Floats:
    """The round trips, and where none was measured the mean of those in the same region."""
    missing = np.isnan(measured_ms)
    if not missing.any():
        return measured_ms
    known = ~missing
    most = int(region.max()) + 1
    count = np.bincount(region[known], minlength=most)
    total = np.bincount(region[known], weights=measured_ms[known], minlength=most)
    mean = np.where(count > 0, total / np.maximum(count, 1), _FAR_MS if known.any() else 0)
    measured_ms[missing] = mean[region[missing]]
    return measured_ms


def _known_or_mean(latency_ms: Floats) -> Floats:
    missing = np.isnan(latency_ms)
    if not missing.any():
        return latency_ms
    known = latency_ms[~missing]
    return np.where(missing, known.mean() if len(known) else 0, latency_ms).astype(np.float32)


class Placer:
    """Places calls of one edge on ``fleet``. It is told of each that a transceiver is ``asked`` for, and then whether
    it was ``placed`` or ``failed``; ``full`` tells it of a transceiver that refused one for want of room."""

    def __init__(self, fleet: Fleet, policy: Policy, chance: random.Random) -> None:
        self.fleet = fleet
        self.policy = policy
        self._chance = chance
        self._asked: dict[int, int] = {}  # calls by id: reports that come meanwhile do not count them
        self._placed: Floats = np.zeros(0, np.float32)  # calls by row, since the report that ``_since`` says
        self._since: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self._lists: OrderedDict[Wanted, Shortlist] = OrderedDict()

    def own(self, rows: npt.NDArray[np.int32]) -> Floats:
        """The calls that are being placed at these rows, or were since their last reports."""
        self._fit()
        placed: Floats = self._placed.take(rows) * (self._since.take(rows) == self.fleet.serial.take(rows))
        if self._asked:
            asked = np.zeros(self.fleet.room, np.float32)
            for number, calls in self._asked.items():
                if (row := self.fleet.row(number)) is not None:
                    asked[row] = calls
            placed += asked.take(rows)
        return placed

    def asked(self, number: int) -> None:
        """Counts a call that a transceiver is asked for, until it is placed or has failed."""
        self._asked[number] = self._asked.get(number, 0) + 1

    def placed(self, number: int) -> None:
        """Counts a call until the transceiver's next report, which has it."""
        self.failed(number)
        self._add(number, 1)

    def failed(self, number: int) -> None:
        """Takes one ``asked`` back."""
        self._asked[number] -= 1
        if not self._asked[number]:
            del self._asked[number]

    def full(self, number: int) -> None:
        """Takes note that a transceiver has no room, whatever it said: it is passed over until its next report."""
        self._add(number, _REFUSED)

    def _add(self, number: int, calls: float) -> None:
        row = self.fleet.row(number)
        if row is None:
            return
        self._fit()
        if self._since[row] != self.fleet.serial[row]:
            self._placed[row], self._since[row] = 0, self.fleet.serial[row]
        self._placed[row] += calls

    def shortlist(self, wanted: Wanted, now: float, *, afresh: bool = False) -> Shortlist | None:
        """What is known of all that have the model, or None where nobody has it."""
        offers = self.fleet.models.get(wanted.model)
        if offers is None:
            return None
        known = self._lists.get(wanted)
        if afresh or known is None or self._outdated(known, offers, now):
            known = self._lists[wanted] = Shortlist(self, wanted, now)
            if len(self._lists) > _MOST_LISTS:
                self._lists.popitem(last=False)
        self._lists.move_to_end(wanted)
        return known

    def choices(self, wanted: Wanted, now: float) -> Iterator[Choice]:
        """The transceivers to ask, each once: a few draws among the good ones, then the others as their scores are,
        those with little room later, then those whose report is old, and at last a few that said that they are full."""
        drawn: set[int] = set()
        shortlist, afresh = self.shortlist(wanted, now), False
        for _ in range(_DRAWS):
            choice = self._draw(shortlist, drawn) if shortlist is not None else None
            if choice is None and not afresh:
                # What was placed and refused meanwhile has used up those that were good.
                shortlist, afresh = self.shortlist(wanted, now, afresh=True), True
                choice = self._draw(shortlist, drawn) if shortlist is not None else None
            if choice is None:
                break
            yield choice
            afresh = False
        if not afresh:
            shortlist = self.shortlist(wanted, now, afresh=True)
        if shortlist is None:
            return
        fit = shortlist.fits & ~shortlist.full
        # After so many refusals room counts more than a few milliseconds do.
        roomy = fit & (shortlist.used <= _ROOMY)
        yield from self._others(shortlist, roomy & ~shortlist.old, drawn, "next best")
        yield from self._others(shortlist, fit & ~shortlist.old, drawn, "little room")
        yield from self._others(shortlist, fit & shortlist.old, drawn, "old report")
        # A bound on what a full fleet is asked for each call that it refuses.
        yield from islice(self._others(shortlist, shortlist.fits & shortlist.full, drawn, "full"), MOST_FULL)

    def _outdated(self, known: Shortlist, offers: Offers, now: float) -> bool:
        if known.changes != (self.fleet.changes, offers.changes):
            return True
        return now - known.made_at > (_KEPT_S if known.reports == self.fleet.reports else _AFRESH_S)

    def _others(self, shortlist: Shortlist, which: Bools, drawn: set[int], why: str) -> Iterator[Choice]:
        for place in shortlist.by_score(which).tolist():
            choice = self._choice(shortlist, place, why)
            if choice.id not in drawn:
                drawn.add(choice.id)
                yield choice

    def _draw(self, shortlist: Shortlist, drawn: set[int]) -> Choice | None:
        """The best of a few good ones that are not ``drawn``, which it is from now on; None where chance finds none."""
        good, ids = shortlist.good, self.fleet.id
        wanted = self.policy.draws
        some = len(good) > wanted
        found: dict[int, int] = {}
        for i in range(wanted + _DRAWS if some else len(good)):
            place = good.item(int(self._chance.random() * len(good)) if some else i)
            number = ids.item(shortlist.row.item(place))
            if number not in drawn and number not in found and self._left(shortlist, place) > 0:
                found[number] = place
                if len(found) == wanted:
                    break
        if not found:
            return None
        order = sorted(
            (self._draw_ms(shortlist, place), self._chance.random(), number) for number, place in found.items()
        )
        best = order[0][2]
        drawn.add(best)
        over = None
        if len(order) > 1:
            runner_up = order[1][2]
            over = runner_up, round(self._score_ms(shortlist, found[runner_up]), 1)
        return self._choice(shortlist, found[best], f"best of {len(order)}", over)

    def _taken(self, shortlist: Shortlist, place: int) -> float:
        row = shortlist.row.item(place)
        fleet = self.fleet
        taken = float(fleet.sessions.item(row))
        if self._since.item(row) == fleet.serial.item(row):
            taken += float(self._placed.item(row))
        return taken + self._asked.get(fleet.id.item(row), 0) if self._asked else taken

    def _left(self, shortlist: Shortlist, place: int) -> float:
        return float(shortlist.capacity.item(place)) - self._taken(shortlist, place)

    def _used(self, shortlist: Shortlist, place: int) -> float:
        return min(1.0, self._taken(shortlist, place) / float(shortlist.capacity.item(place)))

    def _draw_ms(self, shortlist: Shortlist, place: int) -> float:
        """What decides between those that are drawn: where they are alike, the load alone."""
        return float(shortlist.behind_ms.item(place)) + load_ms(self._used(shortlist, place), self.policy)

    def _score_ms(self, shortlist: Shortlist, place: int) -> float:
        return float(shortlist.fixed_ms.item(place)) + load_ms(self._used(shortlist, place), self.policy)

    def _choice(self, shortlist: Shortlist, place: int, why: str, over: tuple[int, float] | None = None) -> Choice:
        row, used = shortlist.row.item(place), self._used(shortlist, place)
        load = load_ms(used, self.policy)
        return Choice(
            self.fleet.id.item(row),
            self.fleet.regions[self.fleet.region.item(row)],
            round(shortlist.fixed_ms.item(place) + load, 1),
            round(shortlist.network_ms.item(place), 1),
            round(shortlist.agent_ms.item(place), 1),
            round(load, 1),
            round(used, 3),
            why,
            over,
        )

    def _fit(self) -> None:
        if len(self._placed) < self.fleet.room:
            self._placed = grown(self._placed, self.fleet.room)
            self._since = grown(self._since, self.fleet.room, -1)
