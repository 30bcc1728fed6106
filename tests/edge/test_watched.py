"""Calls that are watched and whose transceiver dies: who watches goes on with whoever goes on with the call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from signaling_edge import DEADLINE_S, TOKEN, Edge, FakeTransceiver, a_fake, until_connected
from waiting import eventually

from edge.links import watched as under_test
from edge.links.watched import Watched

COUNTS = {"number": 0, "taken": 0}


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[Edge, FakeTransceiver]]:
    async with a_fake(tmp_path) as (edge, fake):
        await until_connected(edge, fake)
        fake.watching = dict(COUNTS)
        yield edge, fake


@asynccontextmanager
async def a_sideband(both: tuple[Edge, FakeTransceiver]) -> AsyncIterator[tuple[Any, str]]:
    """A socket beside a call, and the call's ufrag."""
    edge, fake = both
    status, headers, _ = await edge.place("v=0")
    assert status == 201
    (sealed,) = fake.placed_by
    call_id = str(headers["Location"]).rpartition("/")[2]
    url = f"{edge.url}/v1/realtime?call_id={call_id}"
    async with asyncio.timeout(DEADLINE_S), edge.http.ws_connect(url, headers=TOKEN) as socket:
        yield socket, sealed


async def told(fake: FakeTransceiver, sealed: str, number: int) -> None:
    await fake.tell(sealed, "session.event", event=str(number), number=number)


async def watched_again(fake: FakeTransceiver) -> dict[str, Any]:
    """What the edge asks the next process."""
    await eventually(lambda: len(fake.said["session.watch"]) == 2)
    return fake.said["session.watch"][-1]


async def test_who_watches_goes_on_and_gets_each_event_once(both: tuple[Edge, FakeTransceiver]) -> None:
    fake = both[1]
    async with a_sideband(both) as (socket, sealed):
        for number in (1, 2):
            await told(fake, sealed, number)
        assert [await socket.receive_str() for _ in range(2)] == ["1", "2"]
        await fake.start_again()
        again = await watched_again(fake)
        assert (again["after"], again.get("sent", 0), again.get("owner", "")) == (2, 0, "")
        for number in (1, 2, 3):  # that process does not know what has got there
            await told(fake, sealed, number)
        assert await socket.receive_str() == "3"
        await fake.close_session(sealed, "closed_by_peer")
        assert (await socket.receive()).data == 1001


async def test_what_a_client_said_and_the_next_process_does_not_know_is_said_again(
    both: tuple[Edge, FakeTransceiver],
) -> None:
    fake = both[1]
    async with a_sideband(both) as (socket, sealed):
        for text in "abcd":
            await socket.send_str(text)
        await eventually(lambda: fake.events.get(sealed) == list("abcd"))
        fake.watching = {"number": 0, "taken": 2}
        await fake.start_again()
        assert (await watched_again(fake))["sent"] == 4
        await socket.send_str("e")
        await eventually(lambda: fake.events[sealed] == list("abcdcde"))


async def test_what_is_lost_is_told(both: tuple[Edge, FakeTransceiver]) -> None:
    fake = both[1]
    async with a_sideband(both) as (socket, sealed):
        fake.watching = {**COUNTS, "missed": True}
        await fake.start_again()
        error = await socket.receive_json()
        assert (error["type"], error["error"]["type"]) == ("error", "server_error")
        assert error["error"]["code"] == "events_lost"
        await told(fake, sealed, 9)
        assert await socket.receive_str() == "9"


async def test_a_call_with_which_nobody_goes_on_ends_with_a_reason(both: tuple[Edge, FakeTransceiver]) -> None:
    fake = both[1]
    async with a_sideband(both) as (socket, _):
        fake.placed_by.clear()
        await fake.start_again()
        assert (await socket.receive_json())["error"]["code"] == "session_lost"
        assert (await socket.receive()).data == 1011


async def test_nobody_is_waited_for_long(both: tuple[Edge, FakeTransceiver], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.links.events._BACK_S", 0.2)
    edge, fake = both
    async with a_sideband(both) as (socket, _):
        await fake.close()
        await socket.send_str("to nobody")
        assert (await socket.receive_json())["error"]["code"] == "session_lost"
        assert (await socket.receive()).data == 1011
    assert edge.events is not None
    await eventually(lambda: edge.events is not None and edge.events.listeners == 0)


async def test_a_transceiver_that_does_not_count_is_sent_no_numbers(both: tuple[Edge, FakeTransceiver]) -> None:
    fake = both[1]
    fake.watching = {}
    async with a_sideband(both) as (socket, sealed):
        await socket.send_str("a")
        await eventually(lambda: fake.events.get(sealed) == ["a"])
        await fake.start_again()
        assert "after" not in await watched_again(fake)
        await fake.tell(sealed, "session.event", event="x")
        await fake.tell(sealed, "session.event", event="x")
        assert [await socket.receive_str() for _ in range(2)] == ["x", "x"]


# --- the numbers alone


def test_what_came_before_is_passed_over() -> None:
    watched = Watched()
    watched.begins(0)
    assert [watched.came(number) for number in (1, 2, 2, 1, 4, 3, 0, 0)] == [
        True,
        True,
        False,
        False,
        True,
        False,
        True,
        True,
    ]
    assert watched.after == 4


def test_who_begins_to_watch_a_call_that_goes_on_knows_no_number_before_the_first_event() -> None:
    watched = Watched()
    watched.begins(7)
    assert watched.after is None
    assert watched.came(7)
    assert not watched.came(7)


def test_another_transceiver_counts_anew_and_has_what_was_said() -> None:
    watched = Watched()
    watched.begins(0)
    watched.came(5)
    watched.say("a", 0.0)
    watched.moved()
    assert watched.came(1)
    said = watched.say("b", 0.1)
    assert watched.unknown(0) == ([said], False)
    assert watched.was_said_again(said)


def test_what_is_remembered_is_bounded_and_what_had_to_go_is_known_to_be_lost() -> None:
    watched = Watched()
    watched.begins(0)
    watched.say("early", 0.0)
    many = [watched.say(str(i), 10.0) for i in range(under_test._MOST + 2)]
    again, lost = watched.unknown(1)
    assert again == many[2:]
    assert lost
    assert watched.unknown(many[1].number) == (many[2:], False)
    watched.say("x" * (under_test._MOST_BYTES + 1), 10.0)
    assert watched.unknown(0) == ([], True)


def test_what_is_old_is_known_to_everybody() -> None:
    watched = Watched()
    watched.begins(0)
    watched.say("early", 0.0)
    said = watched.say("late", 10.0)
    assert watched.unknown(0) == ([said], False)
