"""The directory of transceivers, the file that tells children of it, and links that follow it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from signaling_edge import DEADLINE_S, TOKEN, FakeTransceiver, a_fake, two_fakes, until_connected
from waiting import eventually

from edge.directory import Directory, Transceiver
from edge.directory_file import announce, followed
from edge.signaling.health import keep_true
from edge.signaling.ledger import Held, Ledger

ONE, TWO, THREE = (Transceiver(i, f"ipc:///run/{i}") for i in (1, 2, 3))
MOVED = Transceiver(1, "tcp://192.0.2.7:7400")


class Told:
    """A subscriber, and the ids of what it was told."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.heard: list[tuple[str, int]] = []
        directory.subscribe(self)

    def came(self, transceiver: Transceiver) -> None:
        assert self.directory.present[transceiver.id] == transceiver
        self.heard.append(("came", transceiver.id))

    def changed(self, transceiver: Transceiver) -> None:
        assert self.directory.present[transceiver.id] == transceiver
        self.heard.append(("changed", transceiver.id))

    def went(self, transceiver: Transceiver) -> None:
        assert transceiver.id not in self.directory.present
        self.heard.append(("went", transceiver.id))

    def news(self) -> list[tuple[str, int]]:
        heard, self.heard = self.heard, []
        return heard


def test_who_subscribes_hears_of_those_that_are_there_and_then_of_changes() -> None:
    directory = Directory([ONE, TWO])
    told = Told(directory)
    assert told.news() == [("came", 1), ("came", 2)]
    directory.put(THREE)
    assert told.news() == [("came", 3)]
    directory.put(MOVED)
    assert told.news() == [("changed", 1)]
    directory.remove(2)
    assert told.news() == [("went", 2)]
    assert dict(directory.present) == {1: MOVED, 3: THREE}


def test_what_changes_nothing_is_no_news() -> None:
    directory = Directory([ONE])
    told = Told(directory)
    told.news()
    directory.put(Transceiver(1, ONE.endpoint))
    directory.remove(7)
    directory.replace([ONE])
    assert told.news() == []


def test_a_whole_list_is_told_as_what_is_different() -> None:
    directory = Directory([ONE, TWO])
    told = Told(directory)
    told.news()
    directory.replace([THREE, MOVED])
    assert told.news() == [("went", 2), ("changed", 1), ("came", 3)]


def test_two_of_one_id_are_refused_and_nothing_changes() -> None:
    directory = Directory([ONE, TWO])
    told = Told(directory)
    told.news()
    with pytest.raises(ValueError, match="one id"):
        directory.replace([ONE, MOVED])
    assert (dict(directory.present), told.news()) == ({1: ONE, 2: TWO}, [])


def test_a_snapshot_stays_as_it_is() -> None:
    directory = Directory([ONE])
    before = directory.present
    directory.replace([TWO])
    assert dict(before) == {1: ONE}
    with pytest.raises(TypeError):
        before[2] = TWO  # type: ignore[index]


def test_who_departed_is_known_until_its_id_comes_again() -> None:
    directory = Directory([ONE, TWO])
    directory.replace([TWO])
    directory.remove(2)
    assert dict(directory.departed) == {1: ONE, 2: TWO}
    directory.put(MOVED)
    assert dict(directory.departed) == {2: TWO}


# --- the file


class Lines:
    """A log, by line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, **_: Any) -> None:
        self.lines.append(event)

    warning = error = info


def test_children_hear_what_the_supervisor_announces(tmp_path: Path) -> None:
    log, path = Lines(), tmp_path / "run" / "edge.transceivers"
    assert announce(path, [ONE, TWO], log) == str(path)
    file, directory = followed(str(path), [ONE], log), Directory()
    file.value.fill(directory)
    told = Told(directory)
    assert told.news() == [("came", 1), ("came", 2)]
    assert not file.refresh()
    announce(path, [MOVED, THREE], log)
    assert file.refresh()
    file.value.fill(directory)
    assert told.news() == [("went", 2), ("changed", 1), ("came", 3)]
    # One that begins now knows of who went before.
    later = Directory()
    followed(str(path), [], log).value.fill(later)
    assert (dict(later.present), dict(later.departed)) == ({1: MOVED, 3: THREE}, {2: TWO})
    assert log.lines == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"transceivers": [{"id": -1, "endpoint": ""}]}',
        '{"transceivers": [{"id": 1}]}',
        '{"transceivers": [{"id": 1, "endpoint": "a"}, {"id": 1, "endpoint": "b"}]}',
    ],
)
def test_a_broken_listing_is_one_line_and_changes_nothing(tmp_path: Path, text: str) -> None:
    log, path = Lines(), tmp_path / "edge.transceivers"
    announce(path, [ONE, TWO], log)
    file = followed(str(path), [], log)
    path.write_text(text)
    assert not file.refresh()
    assert not file.refresh()
    assert file.value.transceivers == (ONE, TWO)
    assert len(log.lines) == 1
    # The next supervisor does not stumble over it either.
    announce(path, [THREE], log)
    assert file.refresh()
    assert file.value.transceivers == (THREE,)


def test_what_a_later_version_says_of_a_transceiver_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "edge.transceivers"
    entry = {"id": 1, "endpoint": ONE.endpoint, "zone": "b", "drains": True}
    path.write_text(json.dumps({"version": 7, "transceivers": [entry]}))
    assert followed(str(path), [], Lines()).value.transceivers == (ONE,)


def test_where_no_file_can_be_written_children_follow_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = Lines()
    assert announce(tmp_path / "file" / "edge.transceivers", [ONE], log) == ""
    assert len(log.lines) == 1
    file = followed("", [ONE], log)
    assert not file.refresh()
    assert file.value.transceivers == (ONE,)


# --- signaling's links


async def placed(edge: Any, times: int) -> None:
    for _ in range(times):
        assert (await edge.place("v=0"))[0] == 201


async def test_new_calls_go_to_one_that_came_and_to_none_that_went(tmp_path: Path) -> None:
    async with a_fake(tmp_path) as (edge, one):
        two = FakeTransceiver(2, f"ipc://{tmp_path}/2")
        try:
            await placed(edge, 2)
            edge.transceivers.put(Transceiver(2, f"ipc://{tmp_path}/2"))
            await edge.ready(1, 2)
            await placed(edge, 4)
            assert (one.sessions, two.sessions) == (4, 2)
            edge.transceivers.remove(1)
            await edge.ready(2)
            await placed(edge, 3)
            assert (one.sessions, two.sessions) == (4, 5)
            # A call of one that went can still be ended, and its end is heard.
            first, second, *_ = one.placed_by
            await one.close_session(first, "gone")
            await eventually(lambda: edge.ledger.get(first) is None)
            assert edge.ledger.get(second) is not None
        finally:
            await two.close()


async def test_who_comes_or_goes_while_all_are_asked_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.links.transceivers._PATIENCE_S", 1.0)
    monkeypatch.setattr("edge.signaling.health._READY_FOR_S", 0.0)
    async with two_fakes(tmp_path) as (edge, one, two):
        one.mute = {"health"}
        asked = len(one.said["health"])
        asking = asyncio.create_task(edge.http.get(edge.url + "/readyz"))
        await eventually(lambda: len(one.said["health"]) > asked)
        edge.transceivers.replace([Transceiver(2, f"ipc://{tmp_path}/2"), Transceiver(3, f"ipc://{tmp_path}/3")])
        answer = await asking
        assert answer.status == 200
        assert await answer.json() == {"ready": True, "transceivers": {"2": True, "3": False}}
        assert two.counts["health"]


async def test_a_websocket_goes_on_when_its_transceiver_went(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, one, two):
        assert edge.events is not None
        await until_connected(edge, one)
        async with edge.http.ws_connect(edge.url + "/v1/realtime?model=parrot", headers=TOKEN) as socket:
            assert (await socket.receive_json())["type"] == "session.created"
            has = one if one.placed_by else two
            (sealed,) = has.placed_by
            edge.transceivers.remove(has.number)
            edge.events.let_go()
            await socket.send_str('{"type": "x"}')
            await eventually(lambda: has.events.get(sealed) == ['{"type": "x"}'])
            await has.tell(sealed, "session.event", event="{}")
            async with asyncio.timeout(DEADLINE_S):
                assert await socket.receive_json() == {}


async def test_links_end_when_calls_are_over_and_what_nobody_can_end_is_over(tmp_path: Path) -> None:
    async with two_fakes(tmp_path) as (edge, one, two):
        assert edge.events is not None
        await placed(edge, 2)
        edge.ledger.admit("key", 0)
        edge.ledger.settle("key", "", "stray", Held("key", "", 9))
        audit = asyncio.create_task(keep_true(edge.ledger, edge.links, edge.events, every_s=0.02))
        try:
            await eventually(lambda: edge.ledger.get("stray") is None)
            edge.transceivers.remove(1)
            answered = len(one.said["health"])
            await eventually(lambda: len(one.said["health"]) > answered + 3)
            assert edge.links.linked == (1, 2)
            (call,) = one.placed_by
            await one.close_session(call, "gone")
            await eventually(lambda: edge.links.linked == (2,))
            assert two.sessions == 1
            assert len(edge.ledger) == 1
        finally:
            audit.cancel()


async def test_a_process_that_begins_hears_of_calls_at_one_that_departed(tmp_path: Path) -> None:
    async with a_fake(tmp_path) as (edge, one):
        await placed(edge, 1)
        (call,) = one.placed_by
        ledger = Ledger(held={call: Held("a", "", 1)})
        assert edge.events is not None
        edge.transceivers.remove(1)
        edge.links.let_go(())
        assert edge.links.linked == ()
        audit = asyncio.create_task(keep_true(ledger, edge.links, edge.events, every_s=0.02))
        try:
            await eventually(lambda: edge.links.linked == (1,))
            await eventually(lambda: len(one.said.get("health", ())) > 3)
            assert ledger.get(call) is not None
            one.placed_by.clear()
            await eventually(lambda: ledger.get(call) is None)
            await eventually(lambda: edge.links.linked == ())
        finally:
            audit.cancel()


async def test_a_transceiver_that_moves_is_asked_where_it_is_now(tmp_path: Path) -> None:
    async with a_fake(tmp_path) as (edge, one):
        elsewhere = FakeTransceiver(1, f"ipc://{tmp_path}/elsewhere")
        try:
            edge.transceivers.put(Transceiver(1, f"ipc://{tmp_path}/elsewhere"))
            while not elsewhere.counts["health"]:
                await edge.ready(1)
            await placed(edge, 2)
            assert (one.sessions, elsewhere.sessions) == (0, 2)
        finally:
            await elsewhere.close()
