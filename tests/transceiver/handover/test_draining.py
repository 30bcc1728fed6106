"""The drain of a transceiver, and the choice of where its calls go, with calls that are played."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from waiting import eventually

from transceiver.handover import drain
from transceiver.handover.drain import Drain
from transceiver.handover.line import NotTaken
from transceiver.handover.neighbours import Neighbourhood
from transceiver.state import StateError
from wire.messages import Neighbour, Neighbours

ONE, TWO = Neighbour(id=1, endpoint="ipc:///1"), Neighbour(id=2, endpoint="ipc:///2", room=5)


@dataclass
class Call:
    ufrag: str
    movable: bool = True
    quiet: bool = True


@dataclass
class House:
    """Calls that are handed over to whoever is chosen; ``fails`` are the errors of the next attempts."""

    calls: list[Call]
    where: list[Neighbour] = field(default_factory=lambda: [TWO])
    fails: list[Exception] = field(default_factory=list)
    went: list[tuple[str, int]] = field(default_factory=list)

    async def hand_over(self, call: Any, to: Neighbour) -> None:
        if self.fails:
            raise self.fails.pop(0)
        self.calls.remove(call)
        self.went.append((call.ufrag, to.id))

    def choose(self, but: set[int]) -> Neighbour | None:
        return next((each for each in self.where if each.id not in but), None)


@asynccontextmanager
async def drained(house: House) -> AsyncIterator[Drain]:
    running = Drain(lambda: list(house.calls), house.hand_over, house.choose)
    task = asyncio.create_task(running.run())
    try:
        yield running
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_calls_go_one_by_one_and_those_that_come_later_too() -> None:
    house = House([Call("a"), Call("b")])
    async with drained(house) as running:
        await eventually(lambda: [name for name, _ in house.went] == ["a", "b"])
        house.calls.append(Call("c"))
        await eventually(lambda: running.moved == 3)
        assert running.all_of_them == 3


async def test_a_call_in_which_somebody_speaks_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House([Call("speaks", quiet=False), Call("quiet")])
    async with drained(house):
        await eventually(lambda: house.went == [("quiet", 2)])
        house.calls[0].quiet = True
        await eventually(lambda: house.went == [("quiet", 2), ("speaks", 2)])
    monkeypatch.setattr(drain, "SPEAKS_S", 0.0)
    house = House([Call("speaks on", quiet=False)])
    async with drained(house):
        await eventually(lambda: house.went == [("speaks on", 2)])


async def test_a_call_that_is_not_connected_yet_is_waited_for() -> None:
    house = House([Call("a", movable=False), Call("b")])
    async with drained(house):
        await eventually(lambda: house.went == [("b", 2)])
        house.calls[0].movable = True
        await eventually(lambda: len(house.went) == 2)


async def test_who_refuses_is_passed_over_for_the_next() -> None:
    house = House([Call("a")], where=[ONE, TWO], fails=[NotTaken("full", "no room")])
    async with drained(house):
        await eventually(lambda: house.went == [("a", 2)])


@pytest.mark.parametrize("error", [StateError("it has ended"), RuntimeError("a fault of ours")])
async def test_a_call_that_fails_keeps_no_other_waiting(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_NOWHERE_S", 0.05)
    house = House([Call("a"), Call("b")], fails=[error])
    async with drained(house) as running:
        await eventually(lambda: running.moved == 2)
        assert house.went[0] == ("b", 2)


async def test_where_there_is_nobody_calls_are_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_NOWHERE_S", 0.05)
    house = House([Call("a")], where=[])
    async with drained(house):
        house.where.append(TWO)
        await eventually(lambda: house.went == [("a", 2)])


# --- where to


def heard(*told: Neighbour, at: float = 0.0, peer: bytes = b"edge/signaling") -> Neighbourhood:
    known = Neighbourhood(1, random.Random(1))
    known.heard(peer, Neighbours(neighbours=list(told)), at)
    return known


def test_of_two_the_one_with_more_room_is_chosen_and_never_oneself_or_who_leaves_or_is_full() -> None:
    told = [Neighbour(id=i, endpoint=f"ipc:///{i}", room=i, draining=i == 9) for i in (1, 3, 9)]
    known = heard(*told, Neighbour(id=5, endpoint="ipc:///5", room=0), Neighbour(id=6, endpoint="ipc:///6"))
    chosen = {to.id for _ in range(50) if (to := known.choose((), 1.0)) is not None}
    assert chosen == {3}
    assert known.choose({3}, 1.0) == Neighbour(id=6, endpoint="ipc:///6")
    assert known.choose({3, 6}, 1.0) is None


def test_many_that_leave_do_not_all_choose_the_same() -> None:
    known = heard(*(Neighbour(id=i, endpoint=f"ipc:///{i}", room=i) for i in range(2, 40)))
    chosen = [to.id for _ in range(500) if (to := known.choose((), 1.0)) is not None]
    assert len(set(chosen)) > 20
    assert sum(chosen) / len(chosen) > 22, "and those with more room more often"


def test_what_an_edge_said_is_forgotten_when_it_says_no_more() -> None:
    known = heard(TWO)
    assert known.present(9.0) == [TWO]
    assert known.present(11.0) == []


def test_edges_that_tell_are_bounded() -> None:
    known = heard(TWO)
    for i in range(100):
        known.heard(b"edge-%d/signaling" % i, Neighbours(neighbours=[Neighbour(id=i, endpoint="ipc:///x")]), 0.0)
    assert {each.id for each in known.present(0.0)} == set(range(36, 100))
