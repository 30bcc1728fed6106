"""Mutated control messages at everybody who reads them: worker, signaling, events and transceiver.

Each may refuse one with WireError, and nothing else. ``make test`` mutates a little, ``make trials`` for minutes.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fresh_seed, mutated
from signaling_run import Signaling
from wiring import raw

from edge.directory import Directory, Transceiver
from edge.links.events import Events
from edge.links.feed import Feed
from edge.links.transceivers import Transceivers
from transceiver.counters import WIRE_ERRORS
from wire import frames, ufrag
from wire.control import Control, Reader
from wire.keys import ClusterKeys
from wire.messages import Hello, PathDown, PathUp, ToSignaling, ToTransceiver, ToWorker

KEYS = ClusterKeys({1: bytes(range(16))}, 1, bytes(32))
SEALED = ufrag.seal(1, 1, KEYS.ufrag[1])
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**63, 2**64 - 1, -(2**63), 0.5, math.inf, -math.inf, math.nan,
    "", "x", "x" * 300, "\N{SNOWMAN}", "\0", SEALED, SEALED[:-1] + "!", b"", bytes(18), bytes(19), b"\xff" * 5000,
    [], [[]], [None], {}, {"a": {}}, ["192.0.2.1", 3478], ["192.0.2.1", 0], ["a", "b"], {1: 2}, {b"x": 1},
]  # fmt: skip
MEDIA = ["192.0.2.1", 3478]
HELLO: dict[str, Any] = {"type_": "hello", "request": 1, "versions": [3, 4], "software": "firsthop"}
TO_WORKER: list[dict[str, Any]] = [
    HELLO,
    {"type_": "path.up", "address": bytes(18), "ufrag": SEALED, "ssrcs": [1, 2], "spare_ms": 3.5},
    {"type_": "path.down", "address": bytes(18)},
]
TO_SIGNALING: list[dict[str, Any]] = [
    HELLO,
    {"type_": "session.answer", "request": 1, "ufrag": SEALED, "sdp": "v=0"},
    {"type_": "session.opened", "request": 1, "ufrag": SEALED},
    {"type_": "session.watching", "request": 1, "session": {"type": "realtime"}},
    {"type_": "session.event", "ufrag": SEALED, "event": "{}"},
    {"type_": "session.closed", "ufrag": SEALED, "reason": "hangup"},
    {"type_": "session.ended", "request": 1},
    {"type_": "session.ice", "request": 1, "ufrag": SEALED, "fragment": ""},
    {"type_": "session.refused", "request": 1, "code": "full", "message": "no", "param": None},
    {"type_": "health", "request": 1, "sessions": 3, "agents": ["parrot"]},
]
TO_TRANSCEIVER: list[dict[str, Any]] = [
    HELLO,
    {"type_": "session.offer", "request": 1, "offer": "v=0", "agent": "parrot", "media": MEDIA, "session": {}},
    {"type_": "session.open", "request": 1, "agent": "none", "session": None, "owner": "x"},
    {"type_": "session.watch", "request": 1, "ufrag": SEALED, "owner": "x"},
    {"type_": "session.unwatch", "ufrag": SEALED},
    {"type_": "session.event", "ufrag": SEALED, "event": "{}"},
    {"type_": "session.end", "request": 1, "ufrag": SEALED, "owner": "x"},
    {"type_": "session.ice", "request": 1, "ufrag": SEALED, "match": "*", "remote": ["a", "b"], "media": MEDIA},
    {"type_": "session.check", "request": 1, "agent": "echo", "session": {}, "locked": ["instructions"]},
    {"type_": "health", "request": 1},
]
FOR_WORKERS = Reader[ToWorker](ToWorker)
FOR_SIGNALING = Reader[ToSignaling](ToSignaling)
FOR_TRANSCEIVERS = Reader[ToTransceiver](ToTransceiver)
Target = Callable[[bytes], object]


def odd(rng: random.Random, seed: dict[str, Any]) -> bytes:
    """The message with fields of other types, values and names, or fewer of them; or with other bytes."""
    fields = dict(seed)
    for _ in range(rng.randint(0, 2)):
        match rng.randrange(3):
            case 0 if len(fields) > 1:
                del fields[rng.choice([name for name in fields if name != "type_"])]
            case 1:
                fields[rng.choice(["request", "ufrag", "more", "session"])] = rng.choice(ODD)
            case _:
                name = rng.choice(list(fields))
                fields[name] = rng.choice(ODD)
    if not isinstance(fields["type_"], str):
        fields["type_"] = seed["type_"]
    message = raw(**fields, version=rng.choice([3, 4]))
    return mutated(rng, message) if rng.random() < 0.5 else message


async def fuzz(target: Target, seeds: list[dict[str, Any]], seconds: float) -> None:
    rng, until = random.Random(fresh_seed()), time.monotonic() + seconds
    rounds = 0
    while rounds < 3000 or time.monotonic() < until:
        rounds += 1
        message = odd(rng, rng.choice(seeds))
        try:
            target(message)
        except frames.WireError:
            continue
        except Exception as e:
            e.add_note(f"from {message!r}")
            raise


def for_a_worker(message: bytes) -> None:
    said = FOR_WORKERS.read(message)
    if isinstance(said, Control):
        told = said.message
        if isinstance(told, PathUp | PathDown):
            assert len(told.address) == 18
        if isinstance(told, PathUp):
            assert 0 <= told.spare_ms <= 1000
            assert all(0 <= ssrc < 2**32 for ssrc in told.ssrcs)
            ufrag.open_sealed(told.ufrag.encode(), KEYS.ufrag)


class Edge:
    """Signaling's ends, whose links nobody serves: what it is told is given to it by hand."""

    def __init__(self, path: Path) -> None:
        directory = Directory([Transceiver(1, f"ipc://{path}/nobody")])
        self.events = Events(Directory(), b"edge/signaling/events", KEYS)
        self.links = Transceivers(
            directory, b"edge/signaling", KEYS, unasked=self.events._unasked, late=lambda *_: None
        )

    def take(self, message: bytes) -> None:
        self.events._listen(SEALED, 1, Feed())
        said = FOR_SIGNALING.read(message)
        if isinstance(said, Control):
            self.links._take(1, said)
        self.events._feeds.clear()
        self.events._at.clear()

    async def close(self) -> None:
        await self.events.close()
        await self.links.close()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    edge = Edge(tmp_path)
    yield edge
    await edge.close()


@pytest.fixture
async def signaling(tmp_path: Path) -> AsyncIterator[Signaling]:
    ends = Signaling(tmp_path)
    yield ends
    await ends.close()


def for_a_transceiver(signaling: Signaling) -> Target:
    """Calls and sessions that were opened are ended again."""

    def take(message: bytes) -> None:
        said = FOR_TRANSCEIVERS.read(message)
        if isinstance(said, Control) and not isinstance(said.message, Hello):
            failed = WIRE_ERRORS["failed"]
            signaling.transceiver._handle(b"edge/signaling", said)
            assert WIRE_ERRORS["failed"] == failed, "a fault of ours"

    return take


async def test_a_worker_refuses_what_is_odd() -> None:
    await fuzz(for_a_worker, TO_WORKER, 0)


async def test_signaling_refuses_what_is_odd(edge: Edge) -> None:
    await fuzz(edge.take, TO_SIGNALING, 0)


async def test_a_transceiver_refuses_what_is_odd(signaling: Signaling) -> None:
    await fuzz(for_a_transceiver(signaling), TO_TRANSCEIVER, 0)


@pytest.mark.trials
@pytest.mark.timeout(1200)
async def test_all_of_them_do_for_ten_minutes(edge: Edge, signaling: Signaling) -> None:
    await fuzz(for_a_worker, TO_WORKER, 200)
    await fuzz(edge.take, TO_SIGNALING, 200)
    await fuzz(for_a_transceiver(signaling), TO_TRANSCEIVER, 200)


SIZE = 64 << 10
HEADS = {
    "bare": b"",
    "data": frames.pack_batch([])[:8],
    **{f"control {version}": raw("x", version=version)[:-2] for version in (3, 4)},  # up to what its type is
    **{f"fields {version}": raw("session.offer", version=version, session={})[:-1] for version in (3, 4)},
    "hello": raw("hello", x=1)[:-1],
}


def repeated(piece: bytes) -> bytes:
    return (piece * SIZE)[:SIZE]


BOMBS = {
    "arrays in arrays": repeated(b"\x91"),
    "arrays that say they are long": repeated(b"\xdc\xff\xff"),
    "and longer": repeated(b"\xdd\xff\xff\xff\xff"),
    "arrays of a thousand": repeated(b"\xdc\x04\x00"),
    "maps in maps": repeated(b"\x81\xa1x"),
    "maps that say they are long": repeated(b"\xdf\xff\xff\xff\xff\xa1x"),
    "maps as keys": repeated(b"\x81"),
    "empty arrays": b"\xdc\xff\x00" + b"\x90" * 0xFF00,
    "extensions": b"\xdc\x3f\x00" + b"\xd4\x05\x00" * 0x3F00,
    "times": b"\xdc\x1f\x00" + b"\xd6\xff\x00\x00\x00\x01" * 0x1F00,
    "a long text that is not there": b"\xdb\x7f\xff\xff\xff",
    "texts that are none": repeated(b"\xa1\xff"),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_64_kib_of_anything_are_read_in_no_time(head: bytes, bomb: bytes) -> None:
    spent = []
    for _ in range(5):
        began = time.thread_time()
        with pytest.raises(frames.WireError):
            FOR_TRANSCEIVERS.read(head + bomb)
        spent.append(time.thread_time() - began)
    assert min(spent) < 0.02  # it is less than 5 ms on a machine of its own
