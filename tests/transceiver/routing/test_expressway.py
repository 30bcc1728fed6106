"""The sockets of an express path at the transceiver: what comes is taken, what is sent arrives, and looks are few."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from waiting import eventually

from rtc.pacer import Pacer
from runtime.batch import ROOM_BYTES
from runtime.histogram import Durations
from runtime.timer import Timer
from transceiver.backlog import Backlog
from transceiver.counters import RX_EXPRESS, RX_EXPRESS_LATE, TX_DATAGRAMS
from transceiver.links.expressway import Batch, Expressway
from transceiver.links.rhythm import Rhythm
from transceiver.load import Load
from wire import address


class Way:
    """An expressway, a client of it, and what it took."""

    def __init__(self, sending: socket.AddressFamily) -> None:
        self.taken: list[tuple[bytes, bytes]] = []
        self.reading = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.reading.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.reading.bind(("::ffff:127.0.0.1" if sending == socket.AF_INET else "::1", 0))
        self.host = "127.0.0.1" if sending == socket.AF_INET else "::1"
        out = socket.socket(sending, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        out.bind((self.host, 0))
        self.from_port = out.getsockname()[1]
        self.client = socket.socket(sending, socket.SOCK_DGRAM)
        self.client.bind((self.host, 0))
        self.client.settimeout(30)
        self.where = address.pack(self.host, self.client.getsockname()[1])
        self.pacer = Pacer()
        self.came_s: list[float] = []
        self.way = Expressway(b"edge", self.reading, out, self._take, self.pacer)

    def _take(self, edge: bytes, batch: Batch, came_s: Sequence[float]) -> None:
        self.taken += batch
        self.came_s += came_s

    def says(self, datagram: bytes) -> None:
        self.client.sendto(datagram, (self.host, self.reading.getsockname()[1]))


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Way]:
    made = Way(request.param)
    yield made
    made.client.close()
    if made.reading.fileno() >= 0:
        made.way.close()


async def test_what_comes_is_taken_in_order_with_its_address(way: Way) -> None:
    said = [bytes([0x80, i % 256]) * (1 + i) for i in range(100)]
    for datagram in said:
        way.says(datagram)
    await eventually(lambda: len(way.taken) == 100)
    assert way.taken == [(way.where, datagram) for datagram in said]


async def test_what_is_empty_or_too_long_is_counted_and_dropped(way: Way) -> None:
    before, refused = RX_EXPRESS["taken"], RX_EXPRESS["refused"]
    for datagram in (b"", bytes(ROOM_BYTES), bytes(ROOM_BYTES + 1), b"last"):
        way.says(datagram)
    await eventually(lambda: len(way.taken) == 2)
    assert [datagram for _, datagram in way.taken] == [bytes(ROOM_BYTES), b"last"]
    assert (RX_EXPRESS["taken"], RX_EXPRESS["refused"]) == (before + 2, refused + 2)


async def test_what_is_sent_in_one_turn_leaves_from_the_shared_port(way: Way) -> None:
    before = TX_DATAGRAMS["expressed"]
    said = [bytes([0x80, i]) * 80 for i in range(200)]
    for datagram in said:
        way.way.send(way.where, datagram)
    await asyncio.sleep(0)
    heard = [way.client.recvfrom(2048) for _ in said]
    assert [datagram for datagram, _ in heard] == said
    assert {sender[1] for _, sender in heard} == {way.from_port}
    assert TX_DATAGRAMS["expressed"] == before + 200


async def test_one_that_cannot_be_sent_keeps_no_other_back(way: Way) -> None:
    before = TX_DATAGRAMS["expressed"], TX_DATAGRAMS["unsendable"]
    nowhere = address.pack(way.host, 0)
    for where, datagram in ((way.where, b"\x80a"), (nowhere, b"\x80b"), (way.where, b"\x80c")):
        way.way.send(where, datagram)
    await asyncio.sleep(0)
    assert [way.client.recv(100) for _ in range(2)] == [b"\x80a", b"\x80c"]
    assert (TX_DATAGRAMS["expressed"], TX_DATAGRAMS["unsendable"]) == (before[0] + 2, before[1] + 1)


async def test_what_waits_is_taken_and_sent_before_it_ends(way: Way) -> None:
    way.says(b"\x80in")
    way.way.send(way.where, b"\x80out")
    way.way.close()
    assert way.taken == [(way.where, b"\x80in")]
    assert way.client.recv(100) == b"\x80out"


async def test_a_fault_with_one_batch_costs_no_other(way: Way) -> None:
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["message"]))
    taken = way.way._take

    def fails(edge: bytes, batch: Batch, came_s: Sequence[float]) -> None:
        way.way._take = taken
        raise ZeroDivisionError

    way.way._take = fails
    way.says(b"\x80one")
    await eventually(lambda: failures)
    way.says(b"\x80two")
    await eventually(lambda: way.taken == [(way.where, b"\x80two")])


async def test_what_waited_for_a_loop_that_stood_still_was_late(way: Way) -> None:
    late = RX_EXPRESS_LATE.of("media")
    way.says(b"\x80first")
    await eventually(lambda: len(way.taken) == 1)
    before = list(late.counts)
    way.says(b"\x80waits")
    asyncio.get_running_loop().call_soon(time.sleep, 0.05)  # before the look that finds it
    await eventually(lambda: len(way.taken) == 2)
    assert late.quantile_ns(1.0, before) >= 48e6  # a bucket ends there


def test_a_transceiver_is_as_late_as_what_it_reads() -> None:
    reading = Durations()
    load = Load(Pacer(), Backlog(), reading)
    load.look()
    for _ in range(100):
        reading.add(30_000_000)
    load.look()
    assert 0.02 < load.capacity.lag_s < 0.05
    load.look()
    assert load.capacity.lag_s == 0.0


async def test_what_comes_is_told_with_its_time(way: Way) -> None:
    before = time.monotonic()
    for number in range(3):
        way.says(bytes([0x80, number]))
    said = time.monotonic()
    await eventually(lambda: len(way.came_s) == 3)
    assert way.came_s == sorted(way.came_s)
    # The clocks of two calls are read one after the other.
    assert before - 0.01 <= way.came_s[0] <= way.came_s[2] <= said + 0.01


async def test_what_all_waits_for_the_clock_is_taken_when_frames_are_due_and_wakes_nobody(way: Way) -> None:
    heard: list[int] = []
    way.way.look_by_clock(True)
    await asyncio.sleep(0)  # it looks once
    way.says(b"\x80one")
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not way.taken

    def frame() -> None:
        heard.append(len(way.taken))

    way.pacer.add(frame)
    await eventually(lambda: heard)
    way.pacer.remove(frame)
    assert heard[0] == 1  # it was taken before the frame
    way.way.look_by_clock(False)
    way.says(b"\x80two")
    await eventually(lambda: len(way.taken) == 2)


async def test_a_clock_that_has_stopped_keeps_nothing_for_ever(way: Way) -> None:
    way.way.look_by_clock(True)
    way.says(b"\x80one")
    way.way.look_by_clock(True)
    await eventually(lambda: way.taken == [(way.where, b"\x80one")])


async def test_where_the_kernel_fails_once_what_is_sent_leaves_all_the_same(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["message"]))
    take = way.way._in.take

    def fails(now: float) -> list[tuple[bytes, bytes]]:
        monkeypatch.setattr(way.way._in, "take", take)
        raise OSError(12, "no memory")

    monkeypatch.setattr(way.way._in, "take", fails)
    way.says(b"\x80one")
    await eventually(lambda: way.taken == [(way.where, b"\x80one")])
    assert failures
    way.way.send(way.where, b"\x80out")
    await asyncio.sleep(0)
    assert way.client.recv(100) == b"\x80out"


def test_few_datagrams_are_looked_at_at_once() -> None:
    rhythm, now = Rhythm(0.0), 0.0
    for _ in range(400):
        now += 0.001  # 1,000 a second: twenty calls
        assert rhythm.wait(1, now) == 0.0


def test_under_load_looks_are_apart_by_what_a_conversation_can_spare() -> None:
    rhythm, now = Rhythm(0.0), 0.0
    for _ in range(100):
        now += 0.0004
        wait_s = rhythm.wait(1, now)
    assert wait_s == 0.002


def test_where_the_load_ends_looks_are_at_once_again() -> None:
    rhythm, now = Rhythm(0.0), 0.0
    for _ in range(100):
        now += 0.0004
        rhythm.wait(1, now)
    for _ in range(30):
        now += 0.0016
        wait_s = rhythm.wait(2, now)
    assert wait_s == 0.0


def test_a_timer_is_over_again_and_again_until_it_is_never() -> None:
    timer = Timer()

    def is_over(within_s: float) -> bool:
        return bool(select.select([timer.fd], [], [], within_s)[0])

    try:
        timer.every(0.0005)
        for _ in range(3):
            assert is_over(30)
            timer.over()
        timer.every(0.0)
        timer.over()  # and nothing waits for what is over
        assert not is_over(0.01)
        timer.every(3600.0, since=time.monotonic() - 3599.99)  # in step with what is due an hour after that
        assert is_over(30)
    finally:
        timer.close()
