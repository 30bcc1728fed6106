"""The ZeroMQ link between an edge and a transceiver, over loopback TCP with CURVE and over ipc."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq
from waiting import until
from wiring import raw

from wire import frames, link
from wire.keys import ClusterKeys

Socket = zmq.Socket[bytes]
KEYS = ClusterKeys({1: bytes(16)}, 1, bytes(32))
OTHERS = ClusterKeys({1: bytes(16)}, 1, bytes(31) + b"\1")
HELLO = raw("health", request=1)


class Ends:
    """Makes sockets and closes them all."""

    def __init__(self) -> None:
        self.context = zmq.Context[Socket]()
        self.sockets: list[Socket] = []

    def keep(self, made: Socket) -> Socket:
        self.sockets.append(made)
        return made

    def router(self, endpoint: str) -> Socket:
        return self.keep(link.router(self.context, endpoint, KEYS))

    def dealer(self, endpoint: str, name: bytes = b"edge/worker-0", keys: ClusterKeys = KEYS) -> Socket:
        return self.keep(link.dealer(self.context, endpoint, name, keys))

    def bare(self) -> Socket:
        return self.keep(self.context.socket(zmq.DEALER))


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    try:
        yield ends
    finally:
        ends.context.destroy(linger=0)


@pytest.fixture(params=["tcp", "tcp6", "ipc", "abstract"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to bind; port 0 is for the kernel to choose."""
    return {
        "tcp": "tcp://127.0.0.1:*",
        "tcp6": "tcp://[::1]:*",
        "ipc": f"ipc://{tmp_path}/link",
        "abstract": f"ipc://@{tmp_path}/link",
    }[request.param]


def bound(socket: Socket) -> str:
    return socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()


def sends(socket: Socket, *parts: bytes) -> Callable[[], bool]:
    """Whether the message could be handed to a peer that is there."""

    def attempt() -> bool:
        try:
            socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.ZMQError as e:
            if e.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return False
        return True

    return attempt


def received(socket: Socket) -> list[bytes]:
    assert socket.poll(30_000)
    return socket.recv_multipart()


def test_messages_pass_both_ways(ends: Ends, endpoint: str) -> None:
    router = ends.router(endpoint)
    dealer = ends.dealer(bound(router), b"edge/worker-0")
    until(sends(dealer, HELLO))
    assert received(router) == [b"edge/worker-0", HELLO]
    router.send_multipart([b"edge/worker-0", b"one", b"two"])
    assert received(dealer) == [b"one", b"two"]


def test_a_large_batch_passes(ends: Ends, endpoint: str) -> None:
    router = ends.router(endpoint)
    dealer = ends.dealer(bound(router), b"w")
    batch = frames.pack_batch([(bytes(18), b"x" * 2048)] * 1024)
    until(sends(dealer, batch))
    assert received(router) == [b"w", batch]


def test_messages_keep_their_order(ends: Ends, endpoint: str) -> None:
    router = ends.router(endpoint)
    dealer = ends.dealer(bound(router), b"w")
    until(sends(dealer, b"first"))
    for i in range(500):
        dealer.send(str(i).encode(), zmq.NOBLOCK)
    assert [received(router)[1] for _ in range(501)] == [b"first", *(str(i).encode() for i in range(500))]


def intruders(ends: Ends) -> list[Socket]:
    """Those who do not have the key file: other keys, no keys, and only a guess at the server's."""
    other, bare, guess, plain = (ends.bare() for _ in range(4))
    for stranger, server in ((other, OTHERS.curve_server()[0]), (guess, zmq.curve_keypair()[0])):
        stranger.curve_serverkey = server
        stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
    plain.plain_username, plain.plain_password = b"edge", b"edge"
    return [other, bare, guess, plain]


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:*", "ipc://@firsthop-{}"])
def test_without_the_key_file_no_message_gets_through(ends: Ends, where: str) -> None:
    """Anybody on a host may connect to an abstract socket, which has no permissions."""
    router = ends.router(where.format(os.getpid()))
    strangers = intruders(ends)
    # Each is refused by the transceiver before any of its messages is looked at: once, so somebody has to listen first.
    events = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
    monitors = [ends.keep(stranger.get_monitor_socket(events)) for stranger in strangers]
    for stranger in strangers:
        stranger.connect(bound(router))
        sends(stranger, HELLO)()
    for monitor in monitors:
        assert monitor.poll(30_000)
        event = int.from_bytes(monitor.recv_multipart()[0][:2], "little")
        assert event == zmq.EVENT_DISCONNECTED
    # One with the file still comes through, and is the only one who does.
    dealer = ends.dealer(bound(router), b"honest")
    until(sends(dealer, HELLO))
    assert received(router) == [b"honest", HELLO]
    assert not router.poll(0)
    for stranger in strangers:
        stranger.disable_monitor()


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:1", "ipc://{}/nobody"])
def test_sending_to_a_transceiver_that_is_away_says_so_at_once(ends: Ends, where: str, tmp_path: Path) -> None:
    dealer = ends.dealer(where.format(tmp_path), b"w")
    for _ in range(3):
        with pytest.raises(zmq.Again):
            dealer.send(HELLO, zmq.NOBLOCK)


def test_sending_to_a_worker_that_is_away_says_so_at_once(ends: Ends, endpoint: str) -> None:
    router = ends.router(endpoint)
    with pytest.raises(zmq.ZMQError) as refused:
        router.send_multipart([b"nobody", HELLO], zmq.NOBLOCK)
    assert refused.value.errno == zmq.EHOSTUNREACH


def test_a_worker_that_reads_nothing_fills_and_does_not_block(ends: Ends, endpoint: str) -> None:
    router = ends.router(endpoint)
    dealer = ends.dealer(bound(router), b"w")
    until(sends(dealer, HELLO))
    received(router)
    batch = b"x" * (1 << 16)
    until(lambda: not sends(router, b"edge/worker-0", batch)())


def test_a_link_comes_back_by_itself(ends: Ends, endpoint: str) -> None:
    router = ends.router(endpoint)
    where = bound(router)
    dealer = ends.dealer(where, b"w")
    until(sends(dealer, HELLO))
    received(router)
    router.close()
    until(lambda: not sends(dealer, b"lost")())

    again: list[Socket] = []

    def rebound() -> bool:
        with suppress(zmq.ZMQError):
            again.append(ends.router(where))
        return bool(again)

    until(rebound)
    until(sends(dealer, b"found"))
    assert received(again[0]) == [b"w", b"found"]


def test_a_worker_that_was_killed_comes_back_under_its_name(ends: Ends, endpoint: str) -> None:
    router = ends.router(endpoint)
    # The first is still connected when the second comes: as if its death had not been noticed yet.
    first = ends.dealer(bound(router), b"edge/worker-0")
    until(sends(first, b"first"))
    assert received(router) == [b"edge/worker-0", b"first"]
    second = ends.dealer(bound(router), b"edge/worker-0")
    until(sends(second, b"second"))
    assert received(router) == [b"edge/worker-0", b"second"]
    router.send_multipart([b"edge/worker-0", b"for the second"])
    assert received(second) == [b"for the second"]
    assert not first.poll(0)


def test_an_ipc_endpoint_that_is_in_use_is_not_taken_over(ends: Ends, tmp_path: Path) -> None:
    """ZeroMQ itself would unlink the other's socket."""
    router = ends.router(f"ipc://{tmp_path}/link")
    with pytest.raises(zmq.ZMQError) as refused:
        ends.router(f"ipc://{tmp_path}/link")
    assert refused.value.errno == zmq.EADDRINUSE
    dealer = ends.dealer(f"ipc://{tmp_path}/link")
    until(sends(dealer, HELLO))
    assert received(router) == [b"edge/worker-0", HELLO]


def test_an_abstract_endpoint_that_is_in_use_is_not_taken_over(ends: Ends) -> None:
    endpoint = f"ipc://@firsthop-taken-{os.getpid()}"
    router = ends.router(endpoint)
    with pytest.raises(zmq.ZMQError) as refused:
        ends.router(endpoint)
    assert refused.value.errno == zmq.EADDRINUSE
    until(sends(ends.dealer(endpoint), HELLO))
    assert received(router)


@pytest.mark.parametrize("kind", ["file", "folder", "symlink"])
def test_what_is_no_socket_is_not_replaced(ends: Ends, tmp_path: Path, kind: str) -> None:
    """ZeroMQ itself would delete the file."""
    file, place = tmp_path / "precious", tmp_path / "link"
    file.write_text("kept")
    if kind == "file":
        place = file
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(file)
    with pytest.raises(zmq.ZMQError, match="no socket"):
        ends.router(f"ipc://{place}")
    assert file.read_text() == "kept"
    assert place.exists()


def test_an_ipc_socket_that_a_dead_process_left_is_no_hindrance(ends: Ends, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "link"))
    router = ends.router(f"ipc://{tmp_path}/link")
    until(sends(ends.dealer(f"ipc://{tmp_path}/link"), HELLO))
    assert received(router)


def test_the_largest_event_passes_both_ways_and_one_that_is_larger_does_not(ends: Ends, endpoint: str) -> None:
    router = ends.router(endpoint)
    dealer = ends.keep(link.event_dealer(ends.context, bound(router), b"edge/signaling/events", KEYS))
    until(lambda: dealer.poll(0, zmq.POLLOUT))
    largest = raw("session.event", ufrag="x" * 24, event="y" * link.MAX_EVENT_BYTES)
    dealer.send(largest)
    until(lambda: router.poll(0))
    peer, message = router.recv_multipart()
    assert message == largest
    router.send_multipart([peer, largest])
    until(lambda: dealer.poll(0))
    assert dealer.recv() == largest
    # ZeroMQ hangs up on who sends more, and connects again.
    dealer.send(b"z" * (link.MAX_EVENT_BYTES + (1 << 20)))

    def arrives() -> bool:
        with suppress(zmq.Again):
            dealer.send(HELLO, zmq.NOBLOCK)
        return bool(router.poll(0))

    until(arrives)
    assert router.recv_multipart()[1] == HELLO
