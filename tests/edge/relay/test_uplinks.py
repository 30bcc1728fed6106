"""A worker's links to transceivers, as these come to the directory, move and leave it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from signaling_edge import KEYS
from waiting import until

from edge.directory import Directory, Transceiver
from edge.relay.uplink import Counts, Uplink
from edge.relay.uplinks import GONE_AFTER_S, LINGER_S, Uplinks
from runtime.families import edge as families
from runtime.histogram import Histogram
from runtime.metrics import Tally
from wire import link


class Worker:
    """A worker's links under test, on ``ipc://`` in ``directory``, with a clock that is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.tally = Tally(families.RX_WORKER, ("link_down", "link_full"))
        self.age = Histogram(families.WORKER_AGE)
        counts = Counts(self.tally, self.age, Histogram(families.LINK_ROUND_TRIP))
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
        uplink = self.links.by_id[transceiver.id]
        assert uplink.dealer.poll(30_000, zmq.POLLOUT)
        until(lambda: uplink.there)  # which is told a moment later
        return router

    def over(self, now: float) -> list[int]:
        return self.links.look(now, self.flows.__contains__)

    def measured(self) -> set[str]:
        return {s.labels["transceiver"] for metric in self.age.collect() for s in metric.samples}


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


def test_prometheus_sees_which_links_are_up_and_none_of_one_that_left(worker: Worker) -> None:
    def up() -> dict[str, float]:
        worker.over(1000.0)
        (family,) = worker.links.metrics[0].collect()
        return {s.labels["transceiver"]: s.value for s in family.samples}

    assert up() == {"1": 0, "2": 0}
    worker.listens(worker.at(1))
    until(lambda: up() == {"1": 1, "2": 0})
    worker.directory.remove(2)
    assert up() == {"1": 1}


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


def test_beyond_the_first_a_link_is_made_when_a_check_needs_it(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.relay.uplinks.AT_ONCE", 2)
    worker.directory.replace([worker.at(i) for i in range(1, 6)])
    assert set(worker.links.by_id) == {1, 2}
    assert worker.links.reach(4)
    assert not worker.links.reach(6)
    assert set(worker.links.by_id) == {1, 2, 4}
    made = worker.links.by_id[4]
    assert worker.links.reach(4)
    assert worker.links.by_id[4] is made
    worker.listens(worker.at(4))
    # Those without a link may go and move, too.
    worker.directory.replace([worker.at(1), worker.at(2), worker.at(4), worker.at(5, "elsewhere")])
    assert worker.over(1000.0) == []
    assert worker.links.reach(5)
    assert worker.links.by_id[5].endpoint == worker.at(5, "elsewhere").endpoint
