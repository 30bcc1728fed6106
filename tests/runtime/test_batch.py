"""Batches of datagrams over loopback, from and to ordinary sockets."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from waiting import until

from runtime.batch import BATCH, ROOM_BYTES, BatchSocket
from wire import address


class Loopback:
    """The batch socket under test and as many clients as are asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        sock = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind(("::", 0))
        self.port = sock.getsockname()[1]
        self.socket = sock
        self.batch = BatchSocket(sock)

    def client(self, host: str = "127.0.0.1") -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = self._stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        sock.bind((host, 0))
        sock.connect((host, self.port))
        sock.settimeout(30)
        return sock

    def receive(self) -> int:
        """Waits until something is there, and receives it."""
        readable, _, _ = select.select([self.batch.pollable], [], [], 30)
        assert readable
        return self.batch.receive()

    def received(self, count: int) -> list[tuple[bytes, bytes]]:
        """(address, datagram) of ``count`` datagrams, in order."""
        out: list[tuple[bytes, bytes]] = []
        while len(out) < count:
            n = self.receive()
            assert n == len(self.batch.lengths) == len(self.batch.addresses) <= BATCH
            for i, length in enumerate(self.batch.lengths.tolist()):
                out.append((self.batch.addresses[i].tobytes(), self.batch.data[i, :length].tobytes()))
        assert self.batch.receive() == 0
        return out

    def send(self, batch: list[tuple[bytes, bytes]]) -> tuple[int, int]:
        addresses = np.frombuffer(b"".join(a for a, _ in batch), np.uint8).reshape(-1, 18)
        lengths = np.array([len(d) for _, d in batch], np.uint16)
        return self.batch.send(addresses, lengths, b"".join(d for _, d in batch))


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with ExitStack() as stack:
        yield Loopback(stack)


def of(client: socket.socket) -> bytes:
    return address.pack(*client.getsockname()[:2])


def test_nothing_there_is_0(loopback: Loopback) -> None:
    assert loopback.batch.receive() == 0
    assert len(loopback.batch.lengths) == len(loopback.batch.addresses) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_arrive_whole_in_order_and_with_their_address(loopback: Loopback, host: str) -> None:
    client = loopback.client(host)
    sent = [bytes([i]) * (1 + 37 * i) for i in range(50)]
    for datagram in sent:
        client.send(datagram)
    assert loopback.received(50) == [(of(client), datagram) for datagram in sent]


def test_clients_of_both_families_are_told_apart(loopback: Loopback) -> None:
    clients = [loopback.client(host) for host in ("127.0.0.1", "::1", "127.0.0.2", "127.0.0.1")]
    for i, client in enumerate(clients):
        client.send(bytes([i]))
    assert sorted(loopback.received(4)) == sorted((of(client), bytes([i])) for i, client in enumerate(clients))
    assert address.is_ipv4(of(clients[0]))
    assert not address.is_ipv4(of(clients[1]))


def test_an_empty_datagram_is_a_datagram(loopback: Loopback) -> None:
    client = loopback.client()
    for datagram in (b"", b"x", b""):
        client.send(datagram)
    assert loopback.received(3) == [(of(client), b""), (of(client), b"x"), (of(client), b"")]


def test_a_datagram_that_is_not_whole_is_marked(loopback: Loopback) -> None:
    client = loopback.client()
    for length in (ROOM_BYTES - 1, ROOM_BYTES, ROOM_BYTES + 1, 9000, 5):
        client.send(bytes(length))
    lengths: list[int] = []
    while len(lengths) < 5:
        loopback.receive()
        lengths += loopback.batch.lengths.tolist()
    assert lengths == [ROOM_BYTES - 1, ROOM_BYTES, ROOM_BYTES + 1, ROOM_BYTES + 1, 5]


def test_more_than_a_batch_comes_in_batches(loopback: Loopback) -> None:
    client = loopback.client()
    total = BATCH + 44
    for i in range(total):
        client.send(i.to_bytes(2, "big"))
    assert loopback.receive() == BATCH
    first = [bytes(row[:2]) for row in loopback.batch.data]
    assert loopback.receive() == 44
    second = [bytes(row[:2]) for row in loopback.batch.data[:44]]
    assert first + second == [i.to_bytes(2, "big") for i in range(total)]


def test_a_batch_of_short_ones_after_long_ones_has_its_own_lengths(loopback: Loopback) -> None:
    client = loopback.client()
    client.send(b"x" * 2000)
    assert loopback.received(1) == [(of(client), b"x" * 2000)]
    client.send(b"y")
    assert loopback.received(1) == [(of(client), b"y")]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_many_datagrams_reach_several_clients_in_order(loopback: Loopback, host: str) -> None:
    clients = [loopback.client(host) for _ in range(7)]
    # More than one call's worth; few enough bytes a client for any receive buffer.
    batch = [(of(clients[i % 7]), i.to_bytes(2, "big") * (1 + i % 20)) for i in range(BATCH + 100)]
    assert loopback.send(batch) == (len(batch), len(batch))
    for client in clients:
        expected = [datagram for client_address, datagram in batch if client_address == of(client)]
        assert [client.recv(4096) for _ in expected] == expected


def test_what_is_sent_comes_from_the_shared_port(loopback: Loopback) -> None:
    client = loopback.client()
    client.connect(("127.0.0.1", 9))  # disconnects it from the port, so that the source is seen
    client.connect(("127.0.0.1", loopback.port))
    assert loopback.send([(of(client), b"hello")]) == (1, 1)
    assert client.recvfrom(100)[1] == ("127.0.0.1", loopback.port)


def test_empty_datagrams_are_sent_too(loopback: Loopback) -> None:
    client = loopback.client()
    assert loopback.send([(of(client), b""), (of(client), b"x")]) == (2, 2)
    assert [client.recv(10), client.recv(10)] == [b"", b"x"]
    assert loopback.send([(of(client), b"")]) == (1, 1)
    assert client.recv(10) == b""


def test_nothing_to_send_is_nothing_sent(loopback: Loopback) -> None:
    assert loopback.send([]) == (0, 0)


def test_one_that_cannot_be_sent_does_not_stop_the_others(loopback: Loopback) -> None:
    client = loopback.client()
    nowhere = address.pack("255.255.255.255", 9)  # broadcast, which the socket may not
    batch = [(of(client), b"a"), (nowhere, b"lost"), (nowhere, b"lost"), (of(client), b"b"), (nowhere, b"lost")]
    assert loopback.send(batch) == (2, 5)
    assert [client.recv(10), client.recv(10)] == [b"a", b"b"]


def test_a_client_that_is_gone_does_no_harm_to_the_next(loopback: Loopback) -> None:
    client, gone = loopback.client(), loopback.client()
    there = of(gone)
    gone.close()
    for _ in range(3):
        loopback.send([(there, b"x"), (of(client), b"y")])
    assert [client.recv(10) for _ in range(3)] == [b"y"] * 3
    client.send(b"and back")
    assert loopback.received(1) == [(of(client), b"and back")]


def test_what_the_kernel_had_no_room_for_is_counted_and_outlives_the_reader(loopback: Loopback) -> None:
    assert loopback.batch.dropped == 0
    loopback.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client = loopback.client()
    for _ in range(100):
        client.send(bytes(1000))
    lost = loopback.batch.dropped
    assert 0 < lost < 100
    assert BatchSocket(loopback.socket).dropped == lost
    assert len(loopback.received(100 - lost)) == 100 - lost


def test_the_kernel_says_when_it_got_the_first_of_each_batch(loopback: Loopback) -> None:
    client = loopback.client()

    def told() -> bool:
        before = time.time_ns()
        client.send(b"first")
        between = time.time_ns()
        client.send(b"second")
        while (came := loopback.batch.receive()) == 0:
            pass
        came_ns = loopback.batch.came_ns
        while came < 2:
            came += loopback.batch.receive()
        assert before <= came_ns
        return came_ns <= between

    # A busy kernel gets to it later, and one that nobody asked before begins to take these times a moment later.
    until(told)
