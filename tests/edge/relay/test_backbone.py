"""The backbone end of an edge, between other clusters' workers: what they send is one batch, and each gets what is for
its clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from waiting import until
from wiring import Said, heard, raw

from edge.relay.backbone import Backbone
from runtime.batch import BATCH, ROOM_BYTES
from runtime.errors import ConfigError
from wire import address, frames, link
from wire.frames import Data
from wire.keys import ClusterKeys
from wire.messages import PathDown
from wire.versions import OLDEST, VERSION

KEYS = ClusterKeys({1: bytes(16)}, 1, bytes(range(32)))
CLIENTS = [address.pack("192.0.2.1", port) for port in range(1, 5)]

Context = zmq.Context[zmq.Socket[bytes]]


@pytest.fixture
def context() -> Iterator[Context]:
    context = zmq.Context[zmq.Socket[bytes]]()
    yield context
    context.term()


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://@{tmp_path}/backbone"  # with CURVE


@pytest.fixture
def backbone(context: Context, endpoint: str) -> Iterator[Backbone]:
    backbone = Backbone(context, endpoint, KEYS)
    yield backbone
    backbone.pollable.close(linger=0)


@pytest.fixture
def workers(context: Context, endpoint: str, backbone: Backbone) -> Iterator[list[Any]]:
    """The ends of two workers of other clusters."""
    made = [link.media_dealer(context, endpoint, name, KEYS.shared()) for name in (b"a/worker-0", b"b/worker-0")]
    for dealer, _ in made:
        assert dealer.poll(30_000, zmq.POLLOUT)
    yield [dealer for dealer, _ in made]
    for dealer, presence in made:
        presence.close()
        dealer.close(linger=0)


def received(backbone: Backbone, count: int) -> list[tuple[bytes, bytes]]:
    """(client, datagram) of so many datagrams, in the order in which the batches have them."""
    got: list[tuple[bytes, bytes]] = []

    def came() -> bool:
        n = backbone.receive()
        rows = zip(backbone.addresses, backbone.lengths, backbone.data, strict=False) if n else ()
        got.extend((client.tobytes(), row[:length].tobytes()) for client, length, row in rows)
        return len(got) >= count

    until(came)
    return got


def send(backbone: Backbone, *batch: tuple[bytes, bytes]) -> tuple[int, int]:
    addresses = np.frombuffer(b"".join(client for client, _ in batch), np.uint8).reshape(-1, 18)
    lengths = np.array([len(datagram) for _, datagram in batch], np.uint16)
    return backbone.send(addresses, lengths, b"".join(datagram for _, datagram in batch))


def said(worker: Any) -> Data | Said:
    assert worker.poll(30_000)
    return heard(worker.recv())


def test_each_client_is_answered_by_the_way_it_came(backbone: Backbone, workers: list[Any]) -> None:
    a, b = workers
    a.send(frames.pack_batch([(CLIENTS[0], b"one"), (CLIENTS[1], b"three")]))
    b.send(frames.pack_batch([(CLIENTS[2], b"a longer one")]))
    got = received(backbone, 3)
    assert sorted(got) == [(CLIENTS[0], b"one"), (CLIENTS[1], b"three"), (CLIENTS[2], b"a longer one")]
    batch = [(CLIENTS[2], b"for b"), (CLIENTS[0], b"for a"), (CLIENTS[3], b"for nobody"), (CLIENTS[1], b"for a, too")]
    assert send(backbone, *batch) == (3, 4)
    for worker, expected in ((a, [batch[1], batch[3]]), (b, [batch[0]])):
        answer = said(worker)
        assert isinstance(answer, Data)
        assert answer.datagrams() == expected
    backbone.tell(CLIENTS[1], PathDown(address=CLIENTS[1]))
    assert said(a) == Said("path.down", {"address": CLIENTS[1]})


def test_a_client_that_comes_another_way_is_answered_there(backbone: Backbone, workers: list[Any]) -> None:
    for worker in (*workers, workers[0]):
        worker.send(frames.pack_batch([(CLIENTS[0], b"here")]))
        received(backbone, 1)
        assert send(backbone, (CLIENTS[0], b"there")) == (1, 1)
        answer = said(worker)
        assert isinstance(answer, Data)
        assert answer.datagrams() == [(CLIENTS[0], b"there")]


def test_a_message_of_more_than_a_batch_comes_whole(backbone: Backbone, workers: list[Any]) -> None:
    sent = [(CLIENTS[i % 4], b"%d" % i * (1 + i % 3)) for i in range(frames.MAX_DATAGRAMS)]
    workers[0].send(frames.pack_batch(sent))
    assert len(sent) > 2 * BATCH
    assert received(backbone, len(sent)) == sent


def test_a_stamp_is_given_back_once(backbone: Backbone, workers: list[Any]) -> None:
    workers[0].send(frames.pack_batch([(CLIENTS[0], b"here")], stamp_ns=1234))
    received(backbone, 1)
    stamps = []
    for _ in range(2):
        send(backbone, (CLIENTS[0], b"there"))
        answer = said(workers[0])
        assert isinstance(answer, Data)
        stamps.append(answer.stamp_ns)
    assert stamps == [1234, 0]


def test_a_hello_is_answered_as_a_transceiver_would(backbone: Backbone, workers: list[Any]) -> None:
    workers[0].send(raw("hello", request=3, versions=[OLDEST, VERSION]))
    workers[0].send(frames.pack_batch([(CLIENTS[0], b"here")]))
    received(backbone, 1)
    answer = said(workers[0])
    assert isinstance(answer, Said)
    assert (answer.type, answer.fields["request"], answer.fields["versions"]) == ("hello", 3, [OLDEST, VERSION])


@pytest.mark.parametrize(
    "bad",
    [
        [b""],
        [b"\xff\xff"],
        [b"one part", b"and another"],
        [frames.pack_batch([(CLIENTS[0], b"")])],
        [frames.pack_batch([(CLIENTS[0], bytes(ROOM_BYTES + 1))])],
        [frames.pack_batch([])],
        [raw("call.moved", ufrags=["x" * 24], addresses=[], to=1)],
        [raw("hello", request=1, versions=[90, 91])],
    ],
)
def test_what_cannot_be_used_is_counted_and_ends_nothing(
    backbone: Backbone, workers: list[Any], bad: list[bytes]
) -> None:
    workers[0].send_multipart(bad)
    workers[0].send(frames.pack_batch([(CLIENTS[0], b"good")]))
    assert received(backbone, 1) == [(CLIENTS[0], b"good")]
    assert backbone.refused["refused"] == 1


def test_who_does_not_hold_what_is_shared_cannot_connect(context: Context, backbone: Backbone, endpoint: str) -> None:
    # Its own link secret opens nothing here, as the shared one opens nothing at a transceiver.
    dealer, presence = link.media_dealer(context, endpoint, b"c/worker-0", KEYS)
    good, there = link.media_dealer(context, endpoint, b"d/worker-0", KEYS.shared())
    try:
        assert good.poll(30_000, zmq.POLLOUT)
        assert not dealer.poll(0, zmq.POLLOUT)
    finally:
        for each in (presence, there):
            each.close()
        for socket in (dealer, good):
            socket.close(linger=0)


def test_an_endpoint_that_is_taken_is_one_line(context: Context, backbone: Backbone, endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"edge\.backbone"):
        Backbone(context, endpoint, KEYS)
