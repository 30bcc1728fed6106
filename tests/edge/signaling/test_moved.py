"""Calls that move from one transceiver to another, as signaling follows them; both are played."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from signaling_edge import CALLS, DEADLINE_S, KEYS, TOKEN, Edge, FakeTransceiver, two_fakes
from waiting import eventually

from edge.directory import Directory, Transceiver
from edge.links.neighbours import neighbours
from edge.links.whereabouts import Whereabouts
from edge.signaling.journal import Journal
from edge.signaling.ledger import Held, Ledger
from runtime import logs
from wire import messages, ufrag
from wire.messages import MAX_NEIGHBOURS, Event
from wire.report import Model, Report

Fakes = tuple[Edge, FakeTransceiver, FakeTransceiver]
NAME = ufrag.seal(1, 1, KEYS.ufrag[1])


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Fakes]:
    """An edge, a call's first home and its next."""
    async with two_fakes(tmp_path) as (edge, one, two):
        async with asyncio.timeout(DEADLINE_S):
            # The links of events too, which /readyz does not ask.
            while [await edge.refused_socket("", headers=TOKEN) for _ in range(4)] != [101] * 4:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.02)
        await eventually(lambda: not one.placed_by and not two.placed_by and len(edge.ledger) == 0)
        for fake in (one, two):
            fake.counts.clear()
        yield edge, one, two


async def a_call(three: Fakes) -> tuple[str, str, FakeTransceiver, FakeTransceiver]:
    """The id and the ufrag of a new call, where it is and where it could go."""
    edge, one, two = three
    status, headers, _ = await edge.place("v=0")
    assert status == 201
    home, other = (one, two) if one.placed_by else (two, one)
    (sealed,) = home.placed_by
    return str(headers["Location"]).rpartition("/")[2], sealed, home, other


async def hang_up(edge: Edge, call_id: str) -> int:
    async with edge.http.post(f"{edge.url}{CALLS}/{call_id}/hangup", headers=TOKEN) as response:
        return response.status


def sideband(edge: Edge, call_id: str) -> Any:
    return edge.http.ws_connect(f"{edge.url}/v1/realtime?call_id={call_id}", headers=TOKEN)


async def test_a_moved_call_is_hung_up_where_it_lives(three: Fakes) -> None:
    call_id, sealed, home, other = await a_call(three)
    edge = three[0]
    home.give(sealed, other)
    await home.say_moved(sealed, other)
    await eventually(lambda: edge.ledger.whereabouts[sealed] == other.number)
    assert await hang_up(edge, call_id) == 200
    assert (home.counts["session.end"], other.counts["session.end"]) == (0, 1)
    assert len(edge.ledger) == 0


async def test_whoever_was_not_told_is_sent_on_by_the_former_home(three: Fakes) -> None:
    call_id, sealed, home, other = await a_call(three)
    edge = three[0]
    home.give(sealed, other)
    assert await hang_up(edge, call_id) == 200
    assert (home.counts["session.end"], other.counts["session.end"]) == (1, 1)


async def test_a_call_that_two_transceivers_say_the_other_has_is_given_up(three: Fakes) -> None:
    call_id, sealed, home, other = await a_call(three)
    home.give(sealed, other)
    other.moved[sealed] = home.number
    other.placed_by.clear()
    assert await hang_up(three[0], call_id) == 503


async def test_events_stay_in_order_when_a_call_moves(three: Fakes) -> None:
    call_id, sealed, home, other = await a_call(three)
    edge = three[0]
    beside_id = str((await edge.place("v=0"))[1]["Location"]).rpartition("/")[2]
    (beside,) = other.placed_by
    async with sideband(edge, call_id) as socket, sideband(edge, beside_id) as witness:
        await home.tell(sealed, "session.event", event="1")
        assert await socket.receive_str() == "1"
        home.give(sealed, other)
        # The new home is quicker than the old one's word.
        await other.tell(sealed, "session.event", event="3")
        await other.tell(sealed, "session.event", event="4")
        await other.tell(beside, "session.event", event="beside")
        assert await witness.receive_str() == "beside", "what came on that link before this has been read"
        await home.say(sealed, event="2")
        await home.say_moved(sealed, other)
        async with asyncio.timeout(DEADLINE_S):
            assert [await socket.receive_str() for _ in range(3)] == ["2", "3", "4"]
        await socket.send_str("to the new home")
        await eventually(lambda: other.events.get(sealed) == ["to the new home"])
        assert sealed not in home.events
        await other.close_session(sealed, "closed_by_peer")
        assert (await socket.receive()).data == 1001


async def test_nobody_moves_another_transceiver_s_call(three: Fakes) -> None:
    call_id, sealed, home, other = await a_call(three)
    edge = three[0]
    other.placed_by[sealed] = b"edge/signaling"
    await other.say_moved(sealed, other)
    assert await edge.secret()  # after which both have been read
    async with sideband(edge, call_id) as socket:
        await home.tell(sealed, "session.event", event="still here")
        assert await socket.receive_str() == "still here"
    assert edge.ledger.whereabouts[sealed] == home.number


async def test_where_calls_went_is_known_to_the_next_signaling(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "calls", logs.get())
    ledger = Ledger(note=journal.note)
    ledger.admit("key", 0.0)
    ledger.settle("key", "", NAME, Held("key", "", 1))
    ledger.moved(NAME, 2)
    ledger.moved("unknown", 2)
    journal.close()
    next_one = Ledger(held=Journal(tmp_path / "calls", logs.get()).held)
    assert next_one.whereabouts == {NAME: 2}
    assert Whereabouts(next_one.whereabouts).home(NAME) == 2


def test_calls_that_moved_do_not_stand_for_those_that_ended() -> None:
    ledger = Ledger()
    for name in ("a", "b"):
        ledger.admit("key", 0.0)
        ledger.settle("key", "", name, Held("key", "", 1))
    stood = ledger.of(1)
    ledger.moved("a", 2)
    ledger.reconcile(stood, 1, 1)
    assert sorted(ledger.whereabouts) == ["a", "b"]
    ledger.reconcile(stood, 0, 1)
    assert sorted(ledger.whereabouts) == ["a"]


# --- the rules ---


def test_what_comes_early_is_kept_for_two_seconds_and_in_order() -> None:
    where = Whereabouts()
    for at, text in ((0.0, "old"), (1.0, "a"), (2.5, "b")):
        where.early(2, NAME, Event(ufrag=NAME, event=text), at)
    where.early(3, NAME, Event(ufrag=NAME, event="of another"), 2.5)
    where.put(NAME, 2)
    assert [m.event for m in where.due(NAME, 2.6) if isinstance(m, Event)] == ["a", "b"]
    assert where.due(NAME, 2.6) == []


def test_early_messages_are_bounded() -> None:
    where = Whereabouts()
    for i in range(3000):
        where.early(2, NAME, Event(ufrag=NAME, event=str(i)), 0.0)
    where.put(NAME, 2)
    due = where.due(NAME, 0.0)
    assert len(due) == 1024
    assert isinstance(due[-1], Event)
    assert due[-1].event == "2999"


def test_neighbours_are_all_others_with_what_they_say_of_themselves() -> None:
    directory = Directory(Transceiver(n, f"ipc:///{n}") for n in (1, 2, 3))
    directory.report(Report(2, sessions=7, most=10, models=(Model("echo", room=2), Model("parrot", room=5))), 0.0)
    directory.report(Report(3, sessions=12, most=10, draining=True), 0.0)
    told = {each.id: each for each in neighbours(directory, 1, random.Random(1))}
    assert sorted(told) == [2, 3]
    assert (told[2].room, told[2].draining, told[2].endpoint) == (3, False, "ipc:///2")
    assert (told[3].room, told[3].draining) == (0, True)


def test_of_many_neighbours_as_many_are_told_as_one_message_holds() -> None:
    directory = Directory(Transceiver(n, f"ipc:///{n}") for n in range(500))
    told = neighbours(directory, 1, random.Random(1))
    assert len({each.id for each in told}) == MAX_NEIGHBOURS
    assert messages.Neighbours(neighbours=told)
