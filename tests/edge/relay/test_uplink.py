"""A worker's end of a link by itself: the times that it takes, and clocks and peers that lie."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from waiting import until
from wiring import heard

from edge.relay.uplink import Counts, Uplink
from runtime.families import edge as families
from runtime.histogram import Histogram
from runtime.metrics import Tally
from wire import frames, link
from wire.frames import Data
from wire.keys import ClusterKeys

KEYS = ClusterKeys({1: bytes(16)}, 1, bytes(32))
HOUR = 3600 * 1_000_000_000


class Place:
    """An uplink and the ROUTER at its other end."""

    def __init__(self, directory: Path) -> None:
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.endpoint = f"ipc://{directory}/link"
        self._routers: list[zmq.Socket[bytes]] = []
        self.tally = Tally(families.RX_WORKER, ("forwarded_flow", "link_down", "link_full"))
        counts = Counts(self.tally, Histogram(families.WORKER_AGE), Histogram(families.LINK_ROUND_TRIP))
        self.age, self.trip = counts.age.of("1"), counts.round_trip.of("1")
        self.uplink = Uplink(self.context, 1, self.endpoint, b"edge/worker-0", KEYS, counts)

    def send(self, came_ns: int | None = None) -> None:
        message = frames.pack_batch([(bytes(18), b"x")], time.monotonic_ns())
        self.uplink.send(message, {"forwarded_flow": 1}, time.time_ns() if came_ns is None else came_ns)

    def linked(self) -> zmq.Socket[bytes]:
        router: zmq.Socket[bytes] = link.router(self.context, self.endpoint, KEYS)
        self._routers.append(router)
        assert self.uplink.dealer.poll(30_000, zmq.POLLOUT)
        return router


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.context.destroy(linger=0)


def said(stamp_ns: int, held_ns: int) -> Data:
    message = heard(frames.pack_batch([(bytes(18), b"x")], stamp_ns, held_ns))
    assert isinstance(message, Data)
    return message


def test_nobody_there_is_down_at_once(place: Place) -> None:
    place.send()
    assert not place.uplink.waits
    assert +place.tally == {"link_down": 1}
    place.linked()
    place.send()
    assert +place.tally == {"link_down": 1, "forwarded_flow": 1}


def test_one_that_reads_nothing_is_full_and_one_that_went_is_down(place: Place) -> None:
    router = place.linked()

    def full() -> bool:
        for _ in range(1000):
            place.send()
        return place.tally["link_full"] > 0

    until(full)
    assert place.tally["link_down"] == 0
    router.close()

    def down() -> bool:
        place.uplink.flush()
        place.send()
        return place.tally["link_down"] > 0

    until(down)
    assert not place.uplink.waits


def test_a_wall_clock_that_is_set_costs_ages_and_no_media(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    router = place.linked()
    now = time.time_ns()
    for jump in (-HOUR, HOUR, 24 * 365 * HOUR, -now):
        with monkeypatch.context() as patch:
            patch.setattr("edge.relay.uplink.time.time_ns", lambda jump=jump: now + jump)
            place.send(came_ns=now)
        assert router.poll(30_000)
        assert isinstance(heard(router.recv_multipart()[1]), Data)
    assert +place.tally == {"forwarded_flow": 4}
    assert place.age.left_out == 4
    assert sum(place.age.counts) == 0
    place.send()
    assert (place.age.left_out, sum(place.age.counts)) == (4, 1)


def test_a_round_trip_is_what_the_transceiver_did_not_hold(place: Place) -> None:
    stamp = time.monotonic_ns() - 500_000_000
    place.uplink.echoed(said(stamp, held_ns=400_000_000))
    assert sum(place.trip.counts) == 1
    assert 100_000_000 <= place.trip.sum_ns < 60_000_000_000
    place.uplink.echoed(said(0, 0))
    assert sum(place.trip.counts) == 1


@pytest.mark.parametrize("held_ns", [0, HOUR, -HOUR, 2**63, -(2**63), 2**64 - 1])
@pytest.mark.parametrize("stamp_ns", [1, 2**63, 2**64 - 1, -1, -(2**63)])
def test_stamps_that_cannot_be_are_left_out(place: Place, stamp_ns: int, held_ns: int) -> None:
    place.uplink.echoed(said(stamp_ns, held_ns))
    if sum(place.trip.counts):  # a lie that is possible
        assert 0 <= place.trip.sum_ns < 60_000_000_000
    else:
        assert place.trip.left_out == 1
