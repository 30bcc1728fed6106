"""The directory of transceivers, the file that tells children of it, and links that follow it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from signaling_edge import DEADLINE_S, KEYS, TOKEN, FakeTransceiver, a_fake, two_fakes, until_connected
from waiting import eventually, until

from edge.directory import Directory, Transceiver
from edge.directory_file import announce, followed
from edge.relay.uplink import Counts, Uplink
from edge.relay.uplinks import GONE_AFTER_S, LINGER_S, Uplinks
from edge.signaling.health import keep_true
from edge.signaling.ledger import Held, Ledger
from runtime.histogram import Histogram
from runtime.metrics import Tally
from wire import link

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


# --- a worker's links


class Worker:
    """A worker's links under test, on ``ipc://`` in ``directory``, with a clock that is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.tally = Tally("t", "t", ("link_down", "link_full"))
        self.age = Histogram("age", "t", "to")
        counts = Counts(self.tally, self.age, Histogram("trip", "t", "to"))
        self.poller = zmq.Poller()
        self.routers: list[Any] = []  # who holds them closes them
        self.directory = Directory([self.at(1), self.at(2)])

        def make(to: Transceiver) -> Uplink:
            return Uplink(self.context, to.id, to.endpoint, b"edge/worker-0", KEYS, counts)

        self.links = Uplinks(self.directory, make, [self.poller])
        self.flows: set[int] = set()

    def at(self, number: int, place: str = "") -> Transceiver:
        return Transceiver(number, f"ipc://{self.folder}/{place or number}")

    def listens(self, transceiver: Transceiver) -> Any:
        router = link.router(self.context, transceiver.endpoint, KEYS)
        self.routers.append(router)
        assert self.links.by_id[transceiver.id].dealer.poll(30_000, zmq.POLLOUT)
        return router

    def over(self, now: float) -> list[int]:
        return self.links.look(now, self.flows.__contains__)

    def measured(self) -> set[str]:
        return {s.labels["to"] for metric in self.age.collect() for s in metric.samples}


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(tmp_path)
    yield worker
    worker.context.destroy(linger=0)


def test_a_transceiver_that_comes_has_a_link_and_none_that_stands_is_touched(worker: Worker) -> None:
    before = dict(worker.links.by_id)
    worker.directory.put(worker.at(3))
    assert set(worker.links.by_id) == {1, 2, 3}
    assert all(worker.links.by_id[i] is before[i] for i in (1, 2))
    assert len(worker.poller.sockets) == 3
    worker.listens(worker.at(3))
    worker.links.by_id[3].send(b"media", {"forwarded_flow": 1}, 0)
    assert worker.tally["forwarded_flow"] == 1


def test_the_link_of_one_that_went_ends_with_its_last_flow(worker: Worker) -> None:
    worker.listens(worker.at(1))
    worker.flows = {1}
    worker.directory.remove(1)
    assert worker.over(1000.0) == []
    assert worker.over(1000.0 + 10 * GONE_AFTER_S) == []  # its calls go on
    worker.flows = set()
    assert worker.over(1001.0 + 10 * GONE_AFTER_S) == [1]
    ended = worker.links.by_id[1]
    worker.links.end(1)
    assert ended.dealer.closed
    assert set(worker.links.by_id) == {2}
    assert len(worker.poller.sockets) == 1
    assert worker.measured() == {"2"}
    assert worker.over(5000.0) == []


def test_a_call_that_was_answered_just_before_can_make_itself_known(worker: Worker) -> None:
    worker.directory.remove(1)
    assert worker.over(1000.0) == []
    assert worker.over(1000.0 + LINGER_S - 0.1) == []
    assert worker.over(1000.0 + LINGER_S) == [1]


def test_flows_of_one_that_is_gone_for_good_keep_no_link(worker: Worker) -> None:
    worker.flows = {1}
    router = worker.listens(worker.at(1))
    worker.directory.remove(1)
    assert worker.over(1000.0) == []
    assert worker.over(1000.0 + GONE_AFTER_S) == []
    router.close()
    until(lambda: not worker.links.by_id[1].there)
    assert worker.over(1999.0 + GONE_AFTER_S) == [1]


def test_an_id_that_comes_back_goes_on_with_its_link(worker: Worker) -> None:
    before = worker.links.by_id[1]
    worker.directory.remove(1)
    assert worker.over(1000.0) == []
    worker.directory.put(worker.at(1))
    assert worker.links.by_id[1] is before
    assert worker.over(1000.0 + 2 * GONE_AFTER_S) == []


@pytest.mark.parametrize("departed_before", [False, True])
def test_a_transceiver_that_moves_is_linked_where_it_is_now(worker: Worker, departed_before: bool) -> None:
    old = worker.links.by_id[1]
    old.send(b"media", {"forwarded_flow": 1}, 0)
    if departed_before:
        worker.directory.remove(1)
    moved = worker.at(1, "elsewhere")
    worker.directory.put(moved)
    assert old.dealer.closed
    assert len(worker.poller.sockets) == 2
    router = worker.listens(moved)
    worker.links.by_id[1].send(b"media", {"forwarded_flow": 1}, 0)
    assert router.recv_multipart() == [b"edge/worker-0", b"media"]
    assert +worker.tally == {"link_down": 1, "forwarded_flow": 1}
    assert worker.measured() == {"1", "2"}


def test_ids_are_used_again_and_again(worker: Worker) -> None:
    worker.listens(worker.at(1))
    for now in range(1000, 1000 + 100 * 50, 100):
        worker.directory.remove(1)
        assert worker.over(now) == []
        assert worker.over(now + LINGER_S) == [1]
        worker.links.end(1)
        worker.directory.put(worker.at(1))
        assert worker.links.by_id[1].dealer.poll(30_000, zmq.POLLOUT)
    assert worker.measured() == {"1", "2"}
    assert len(worker.poller.sockets) == 2


def test_a_worker_that_begins_reaches_those_that_departed(worker: Worker) -> None:
    worker.directory.replace([worker.at(1)], [worker.at(7)])
    assert not worker.links.reach(8)
    assert worker.links.reach(7)
    assert worker.links.reach(1)
    worker.flows = {7}
    assert worker.over(1000.0) == []
    worker.flows = set()
    assert worker.over(1000.0 + LINGER_S) == [2, 7]


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
