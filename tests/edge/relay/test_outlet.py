"""The way out to clients while the kernel takes nothing, or not everything."""

from __future__ import annotations

import ctypes
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from edge.relay.outlet import Outlet
from runtime import batch
from runtime.batch import BATCH, BatchSocket
from runtime.families import edge as families
from runtime.metrics import Tally
from wire import address


class Kernel:
    """A sendmmsg(2) that takes ``room`` datagrams and then no more, as when the socket's buffer is full."""

    def __init__(self) -> None:
        self.room = 0
        self._real = batch._libc

    def sendmmsg(self, fd: int, pointer: ctypes.c_void_p, count: int, flags: int) -> int:
        if not self.room:
            ctypes.set_errno(errno.EAGAIN)
            return -1
        taken: int = self._real.sendmmsg(fd, pointer, min(count, self.room), flags)
        self.room -= max(0, taken)
        return taken


class Clock:
    """Monotonic seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Place:
    """An outlet, its kernel and clock, and one client."""

    def __init__(self, sock: socket.socket, client: socket.socket, kernel: Kernel, clock: Clock) -> None:
        self.kernel, self.clock, self.client = kernel, clock, client
        self.tally = Tally(families.TX_WORKER, ("sent", "socket_full", "unsendable"))
        self.outlet = Outlet(BatchSocket(sock), self.tally)
        self._to = address.pack(*client.getsockname())

    def send(self, *datagrams: bytes, to: bytes = b"") -> None:
        addresses = np.frombuffer((to or self._to) * len(datagrams), np.uint8).reshape(-1, 18)
        lengths = np.array([len(datagram) for datagram in datagrams], np.uint16)
        self.outlet.send(addresses, lengths, b"".join(datagrams))

    def received(self) -> list[bytes]:
        out = []
        while True:
            try:
                out.append(self.client.recv(100, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return out


@contextmanager
def a_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    kernel, clock = Kernel(), Clock()
    monkeypatch.setattr("runtime.batch._libc", kernel)
    monkeypatch.setattr("edge.relay.outlet.time", clock)
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        client.bind(("127.0.0.1", 0))
        yield Place(sock, client, kernel, clock)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with a_place(monkeypatch) as place:
        yield place


def test_what_a_full_socket_does_not_take_leaves_a_moment_later_in_order(place: Place) -> None:
    place.kernel.room = 2
    place.send(b"one", b"", b"three", b"four")
    place.send(b"five")
    assert place.received() == [b"one", b""]
    assert place.outlet.waits
    assert +place.tally == {"sent": 2}
    place.clock.now += 0.05
    place.kernel.room = 100
    place.outlet.flush()
    assert place.received() == [b"three", b"four", b"five"]
    assert not place.outlet.waits
    assert +place.tally == {"sent": 5}


def test_nothing_overtakes_what_waits(place: Place) -> None:
    place.send(b"first")
    place.kernel.room = 100
    place.send(b"second")
    assert place.received() == [b"first", b"second"]


def test_what_waited_too_long_is_dropped_and_the_newest_is_not(place: Place) -> None:
    place.send(b"late", b"late too")
    place.clock.now += 0.05
    place.send(b"fresh")
    place.clock.now += 0.05
    place.kernel.room = 100
    place.outlet.flush()
    assert place.received() == [b"fresh"]
    assert +place.tally == {"sent": 1, "socket_full": 2}


def test_more_than_one_call_takes_stops_where_the_socket_is_full(place: Place) -> None:
    datagrams = [i.to_bytes(2, "big") for i in range(BATCH + 44)]
    place.kernel.room = BATCH + 4
    place.send(*datagrams)
    place.kernel.room = 100
    place.outlet.flush()
    assert place.received() == datagrams
    assert +place.tally == {"sent": BATCH + 44}


def test_what_cannot_be_sent_at_all_is_not_tried_again(place: Place) -> None:
    place.kernel.room = 100
    place.send(b"broadcast", to=address.pack("255.255.255.255", 9))
    assert not place.outlet.waits
    assert +place.tally == {"unsendable": 1}
