"""Datagrams of small batches over loopback, from and to ordinary sockets."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from waiting import until

from runtime.batch import ROOM_BYTES
from runtime.datagrams import Datagram, DatagramSocket
from wire import address

MOST = 8


class Pair:
    """The socket under test, and a client of it, of one family of addresses."""

    def __init__(self, stack: ExitStack, host: str) -> None:
        self.host = host
        self.socket = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(("::", 0))
        self.under_test = DatagramSocket(self.socket, MOST)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.client = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        self.client.bind((host, 0))
        self.client.settimeout(30)
        self.where = address.pack(*self.client.getsockname()[:2])
        sender = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        sender.bind((host, 0))
        self.sender = DatagramSocket(sender, MOST)

    def says(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.client.sendto(datagram, (self.host, self.socket.getsockname()[1]))

    def taken(self) -> list[Datagram]:
        """The next batch, of what has come or comes within 30 s."""
        assert select.select([self.socket], [], [], 30)[0]
        return self.under_test.take(time.monotonic())


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["IPv4", "IPv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack, request.param)


def test_nothing_there_is_an_empty_batch(pair: Pair) -> None:
    assert pair.under_test.take(time.monotonic()) == []
    assert (pair.under_test.came_s, pair.under_test.refused) == ([], 0)


def test_batches_are_in_order_and_no_larger_than_agreed(pair: Pair) -> None:
    said = [bytes([n]) * (n + 1) for n in range(2 * MOST + 1)]
    pair.says(*said)
    batches: list[list[Datagram]] = []
    while sum(map(len, batches)) < len(said):
        batches.append(pair.taken())
    assert [datagram for batch in batches for datagram in batch] == [(pair.where, datagram) for datagram in said]
    assert max(map(len, batches)) <= MOST


def test_what_is_empty_or_too_long_is_left_out(pair: Pair) -> None:
    pair.says(b"", bytes(ROOM_BYTES + 1), bytes(ROOM_BYTES))
    taken, refused = [], 0
    while len(taken) + refused < 3:
        taken += pair.taken()
        refused += pair.under_test.refused
        assert len(pair.under_test.came_s) <= len(taken)
    assert taken == [(pair.where, bytes(ROOM_BYTES))]
    assert refused == 2


def stamped(pair: Pair) -> bool:
    """Whether the kernel takes the time at which one comes: it begins to a moment after the first socket asked for it,
    and until then says when one was read."""
    assert pair.under_test.take(time.monotonic()) == []
    pair.says(b"early")
    assert select.select([pair.socket], [], [], 30)[0]
    time.sleep(0.02)
    read_at = time.monotonic()
    pair.taken()
    return pair.under_test.came_s[0] < read_at - 0.01


def test_each_has_the_time_at_which_it_came_however_late_it_is_read(pair: Pair) -> None:
    until(lambda: stamped(pair))
    assert pair.under_test.take(time.monotonic()) == []
    pair.says(b"first")
    assert select.select([pair.socket], [], [], 30)[0]
    time.sleep(0.05)
    pair.says(b"second")
    taken, came_s = [], []
    while len(taken) < 2:
        taken += pair.taken()
        came_s += pair.under_test.came_s
    # The kernel's clock and ours are read one after the other, with whatever comes between, once for both.
    assert came_s[1] - came_s[0] >= 0.04
    assert came_s[1] <= time.monotonic() + 30


@pytest.mark.parametrize("by_s", [-3600.0, 3600.0])
def test_a_clock_that_is_set_meanwhile_puts_nothing_before_the_last_look_or_into_the_future(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, by_s: float
) -> None:
    last = time.monotonic()
    assert pair.under_test.take(last) == []
    pair.says(b"one")
    assert select.select([pair.socket], [], [], 30)[0]
    set_to, now = time.time() + by_s, time.monotonic()
    monkeypatch.setattr("runtime.datagrams.time.time", lambda: set_to)
    assert pair.under_test.take(now) == [(pair.where, b"one")]
    assert pair.under_test.came_s == [last if by_s > 0 else now]


def test_any_number_is_sent_in_order(pair: Pair) -> None:
    said = [bytes([n]) * (1 + n) for n in range(3 * MOST + 1)]
    assert pair.sender.give([(pair.where, datagram) for datagram in said]) == (len(said), len(said))
    assert [pair.client.recv(ROOM_BYTES) for _ in said] == said


def test_one_that_cannot_be_sent_keeps_no_other_back(pair: Pair) -> None:
    nowhere = address.pack(pair.host, 0)
    batch = [(pair.where, b"a"), (nowhere, b"b"), (pair.where, bytes(ROOM_BYTES + 1)), (pair.where, b"c")]
    assert pair.sender.give(batch) == (2, 4)
    assert [pair.client.recv(ROOM_BYTES) for _ in range(2)] == [b"a", b"c"]
