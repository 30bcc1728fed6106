"""The fleet: what transceivers report, as columns with a row for each, so that ten thousand are scored at once. Pure.

A report is entered when it comes, for some microseconds, and a placement finds the columns ready.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.placement.names import Names
from wire.report import Model, Report

__all__ = ["ANY", "MOST_OFFERS", "Fleet", "Offers", "grown"]

ANY = ""  # the model of a call that names none: whichever the transceiver has for it
MOST_OFFERS = 1 << 20  # models of all transceivers together; what is beyond is left out and counted
_FIRST = 16

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


def grown(column: npt.NDArray[Any], room: int, fill: float = 0) -> npt.NDArray[Any]:
    """A copy of a column with places for ``room`` rows; new ones have ``fill``."""
    out = np.full(room, fill, column.dtype)
    out[: len(column)] = column
    return out


class Offers:
    """One model's columns: a place for each transceiver that has it. ``changes`` counts what comes and goes."""

    def __init__(self) -> None:
        self.size = 0
        self.changes = 0
        self.row: Ints = np.zeros(_FIRST, np.int32)
        self.version: Ints = np.zeros(_FIRST, np.int32)
        self.room: Floats = np.zeros(_FIRST, np.float32)  # NaN where it is not known
        self.queue: Floats = np.zeros(_FIRST, np.float32)
        self.latency_ms: Floats = np.zeros(_FIRST, np.float32)  # NaN before the first answer

    def add(self, row: int, version: int) -> int:
        """Makes a place for a row. Returns it."""
        place = self.size
        if place == len(self.row):
            room = 2 * place
            self.row, self.version = grown(self.row, room), grown(self.version, room)
            self.room, self.queue = grown(self.room, room), grown(self.queue, room)
            self.latency_ms = grown(self.latency_ms, room)
        self.size += 1
        self.changes += 1
        self.row[place], self.version[place] = row, version
        return place

    def tell(self, place: int, model: Model) -> None:
        """Enters what the row says of the model now."""
        self.room[place] = math.nan if model.room is None else model.room
        self.queue[place] = model.queue
        self.latency_ms[place] = math.nan if model.latency_ms is None else model.latency_ms

    def remove(self, place: int) -> int:
        """Gives a place up, and moves the last there. Returns the row that has moved."""
        last = self.size - 1
        for column in (self.row, self.version, self.room, self.queue, self.latency_ms):
            column[place] = column[last]
        self.size = last
        self.changes += 1
        return int(self.row[place])


class _Row:
    """A transceiver's row, and its places in the columns of its models."""

    __slots__ = ("named", "number", "places")

    def __init__(self, number: int) -> None:
        self.number = number
        self.named: tuple[tuple[str, str], ...] | None = None
        self.places: dict[str, int] = {}


class Fleet:
    """The columns, whose rows are the transceivers'. ``serial`` counts each row's reports, so that what was placed
    since the last one can be told from what it counts. ``changes`` counts what comes, goes and changes other than in
    numbers, ``reports`` all reports, ``left_out`` the models that found no room. Times are seconds of the reader's
    monotonic clock."""

    def __init__(self, most_offers: int = MOST_OFFERS) -> None:
        self.models: dict[str, Offers] = {}
        self.regions = Names()
        self.versions = Names()
        self.changes = 0
        self.reports = 0
        self.left_out = 0
        self.id: Ints = np.zeros(_FIRST, np.int32)
        self.sessions: Floats = np.zeros(_FIRST, np.float32)
        self.most: Floats = np.zeros(_FIRST, np.float32)
        self.region: Ints = np.zeros(_FIRST, np.int32)
        self.draining: npt.NDArray[np.bool_] = np.zeros(_FIRST, np.bool_)
        self.received_at: npt.NDArray[np.float64] = np.zeros(_FIRST, np.float64)
        self.round_trip_ms: Floats = np.zeros(_FIRST, np.float32)
        self.serial: Ints = np.zeros(_FIRST, np.int32)
        self._rows: dict[int, _Row] = {}
        self._by_row: list[_Row | None] = []
        self._free: list[int] = []
        self._offers = 0
        self._most_offers = most_offers

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, number: int) -> bool:
        return number in self._rows

    @property
    def names(self) -> list[str]:
        """The names of the models that there are, in order."""
        return sorted(name for name in self.models if name != ANY)

    def has(self, model: str, version: str = "") -> bool:
        """Whether anybody has that model, in that version ("" for any)."""
        offers = self.models.get(model)
        if offers is None or not version:
            return offers is not None
        number = self.versions.find(version)
        return number is not None and bool((offers.version[: offers.size] == number).any())

    def versions_of(self, model: str) -> list[str]:
        """The versions of a model that there are, in order; those that do not say theirs are left out."""
        offers = self.models[model]
        return sorted(filter(None, (self.versions[number] for number in set(offers.version[: offers.size].tolist()))))

    @property
    def calls(self) -> int:
        """The number of calls that all have reported."""
        return int(self.sessions.sum())

    @property
    def room(self) -> int:
        """The number of places in each column."""
        return len(self.id)

    def row(self, number: int) -> int | None:
        """The row of a transceiver, or None where it has reported nothing."""
        known = self._rows.get(number)
        return None if known is None else known.number

    def put(self, report: Report, received_at: float, round_trip_s: float | None = None) -> None:
        """Enters a report, which came at ``received_at``; ``round_trip_s`` is that of this edge's link, or None. With
        the time of the last one it is that one again, and only the round trip is new."""
        known = self._rows.get(report.id)
        again = known is not None and self.received_at[known.number] == received_at
        if known is None:
            known = self._new(report.id)
        row = known.number
        self.reports += 1
        self.round_trip_ms[row] = math.nan if round_trip_s is None else 1000 * round_trip_s
        if again:
            return
        if self.draining[row] != report.draining or self.regions[self.region[row]] != report.region:
            self.draining[row] = report.draining
            self.regions.release(int(self.region[row]))
            self.region[row] = self.regions.hold(report.region)
            self.changes += 1
        self.sessions[row] = report.sessions
        self.most[row] = report.most or math.inf
        self.received_at[row] = received_at
        self.serial[row] += 1
        self._offer(known, report)

    def tell_way(self, number: int, round_trip_s: float | None) -> None:
        """Enters another round trip to a transceiver, if it is there."""
        known = self._rows.get(number)
        if known is not None:
            self.reports += 1
            self.round_trip_ms[known.number] = math.nan if round_trip_s is None else 1000 * round_trip_s

    def remove(self, number: int) -> None:
        """Takes a transceiver out. Nothing happens where it is not there."""
        known = self._rows.pop(number, None)
        if known is None:
            return
        self._withdraw(known)
        self.regions.release(int(self.region[known.number]))
        self.region[known.number] = 0
        self.sessions[known.number] = 0
        self.serial[known.number] += 1  # what was placed there is not the next one's
        self._by_row[known.number] = None
        self._free.append(known.number)
        self.changes += 1

    def keep(self, numbers: Mapping[int, object]) -> None:
        """Takes out all that are not in ``numbers``."""
        for number in [number for number in self._rows if number not in numbers]:
            self.remove(number)

    def _new(self, number: int) -> _Row:
        if not self._free:
            self._free.append(len(self._by_row))
            self._by_row.append(None)
        known = self._rows[number] = _Row(self._free.pop())
        self._by_row[known.number] = known
        if known.number == self.room:
            room = 2 * self.room
            self.id, self.sessions, self.most = grown(self.id, room), grown(self.sessions, room), grown(self.most, room)
            self.region, self.draining = grown(self.region, room), grown(self.draining, room)
            self.received_at, self.round_trip_ms = grown(self.received_at, room), grown(self.round_trip_ms, room)
            self.serial = grown(self.serial, room)
        self.id[known.number] = number
        self.draining[known.number] = False
        self.regions.hold("")
        self.changes += 1
        return known

    def _offer(self, known: _Row, report: Report) -> None:
        named = tuple((model.name, model.version) for model in report.models)
        if named != known.named:
            self._withdraw(known)
            known.named = named
            for name, version in ((ANY, ""), *named):
                if self._offers >= self._most_offers:
                    self.left_out += 1
                elif name not in known.places:
                    self._offers += 1
                    offers = self.models.setdefault(name, Offers())
                    known.places[name] = offers.add(known.number, self.versions.hold(version))
        for model in report.models:
            if model.name != ANY and (place := known.places.get(model.name)) is not None:
                self.models[model.name].tell(place, model)
        if (place := known.places.get(ANY)) is not None:
            # Whichever its own is: the one with the least room, lest it be refused there.
            rooms = [model.room for model in report.models if model.room is not None]
            self.models[ANY].tell(place, Model(name=ANY, room=min(rooms, default=None)))

    def _withdraw(self, known: _Row) -> None:
        for name, place in known.places.items():
            offers = self.models[name]
            self.versions.release(int(offers.version[place]))
            moved = self._by_row[offers.remove(place)]
            if moved is not None and moved is not known:
                moved.places[name] = place
            if not offers.size:
                del self.models[name]
        self._offers -= len(known.places)
        known.places = {}
