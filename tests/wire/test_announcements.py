"""The announcements of edges to each other, and messages that are none."""

from __future__ import annotations

import os
import random
from contextlib import suppress

import msgpack
import pytest

from wire.announcements import MAX_FLOWS, MAX_MESSAGE_BYTES, Flows, Heartbeat, encode, read
from wire.frames import WireError
from wire.ufrag import MAX_TRANSCEIVER


@pytest.mark.parametrize(
    "announcement",
    [
        Heartbeat("edge-1"),
        Heartbeat("edge-1", draining=True),
        Flows("edge-1", []),
        Flows("edge-1", [(0, 0), (0xFFFFFFFF, MAX_TRANSCEIVER)]),
    ],
)
def test_what_is_said_is_heard(announcement: Heartbeat | Flows) -> None:
    assert read(encode(announcement)) == announcement


def test_the_longest_of_them_fits() -> None:
    longest = Flows("x" * 64, [(0xFFFFFFFF, MAX_TRANSCEIVER)] * MAX_FLOWS)
    assert len(encode(longest)) <= MAX_MESSAGE_BYTES
    assert read(encode(longest)) == longest


def test_what_a_later_release_adds_is_passed_over() -> None:
    assert read(b"E" + msgpack.packb({"name": "edge-1", "load": [1, 2]})) == Heartbeat("edge-1")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"E",
        b"X" + msgpack.packb({"name": "edge-1"}),
        b"E" + msgpack.packb({"name": ""}),
        b"E" + msgpack.packb({"name": "x" * 65}),
        b"E" + msgpack.packb({"name": 1}),
        b"E" + msgpack.packb({"name": "edge-1", "draining": "no"}),
        b"E" + msgpack.packb(["edge-1"]),
        b"F" + msgpack.packb({"name": "edge-1"}),
        b"F" + msgpack.packb({"name": "edge-1", "flows": [[1]]}),
        b"F" + msgpack.packb({"name": "edge-1", "flows": [[1 << 32, 1]]}),
        b"F" + msgpack.packb({"name": "edge-1", "flows": [[1, MAX_TRANSCEIVER + 1]]}),
        b"F" + msgpack.packb({"name": "edge-1", "flows": [[1, 1]] * (MAX_FLOWS + 1)}),
        b"E" + msgpack.packb({"name": "edge-1"}) + b"\0" * MAX_MESSAGE_BYTES,
        b"F" + b"\x91" * 60_000,
    ],
)
def test_anything_else_is_refused(said: bytes) -> None:
    with pytest.raises(WireError):
        read(said)


def test_garbage_raises_nothing_else() -> None:
    chance = random.Random(7)
    good = encode(Flows("edge-1", [(5, 1)] * 20))
    for _ in range(5000):
        bent = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            bent[chance.randrange(len(bent))] = chance.randrange(256)
        for said in (bytes(bent), os.urandom(chance.randrange(64))):
            with suppress(WireError):
                read(said)
