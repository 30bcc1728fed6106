"""Edges that hear of each other over ZeroMQ: one that is there is named, one that is gone is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import zmq
from waiting import eventually

from edge.links.announcing import Announcing
from edge.peers import Peer, Peers
from wire import link
from wire.announcements import Heartbeat, encode
from wire.keys import ClusterKeys

KEYS = ClusterKeys({1: bytes(16)}, 1, bytes(32))
OTHERS = ClusterKeys({1: bytes(16)}, 1, bytes(31) + b"\1")


def endpoint(folder: Path, number: int) -> str:
    return f"ipc://@{folder}/{number}"  # no file, so it is encrypted as between hosts


class Edge:
    """An edge that knows of two: itself and another."""

    def __init__(self, folder: Path, number: int, keys: ClusterKeys = KEYS) -> None:
        self.peers = Peers(f"edge-{number}", (f"192.0.2.{number}", 3478))
        self.announcing = Announcing(self.peers, endpoint(folder, number), keys)
        self.announcing.know(Peer(f"edge-{n}", (f"192.0.2.{n}", 3478), endpoint(folder, n)) for n in (1, 2))

    @property
    def named(self) -> list[str]:
        return [host for host, _ in self.peers.media(time.monotonic())]


@asynccontextmanager
async def running(edge: Edge) -> AsyncIterator[Edge]:
    tasks = [asyncio.create_task(work) for work in (edge.announcing.listen(), edge.announcing.announce())]
    try:
        yield edge
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        edge.announcing.close()


async def test_each_names_the_other_until_it_is_gone_or_drains(tmp_path: Path) -> None:
    async with running(Edge(tmp_path, 1)) as first:
        async with running(Edge(tmp_path, 2)) as second:
            await eventually(lambda: first.named == ["192.0.2.1", "192.0.2.2"])
            await eventually(lambda: second.named == ["192.0.2.2", "192.0.2.1"])
            second.peers.draining = True
            await eventually(lambda: first.named == ["192.0.2.1"] and second.named == ["192.0.2.1"])
            ((said,),) = [family.samples for family in first.announcing.draining.collect()]
            assert (said.labels, said.value) == ({"edge": "edge-2"}, 1)
            ((age,),) = [family.samples for family in first.announcing.age.collect()]
            assert age.labels == {"edge": "edge-2"}
            assert age.value >= 0
            second.peers.draining = False
            await eventually(lambda: len(first.named) == 2)
        await eventually(lambda: first.named == ["192.0.2.1"])


async def test_an_edge_that_comes_back_is_named_again(tmp_path: Path) -> None:
    async with running(Edge(tmp_path, 1)) as first:
        for _ in range(2):
            async with running(Edge(tmp_path, 2)):
                await eventually(lambda: len(first.named) == 2)
            await eventually(lambda: len(first.named) == 1)


async def test_one_that_waits_for_its_endpoint_listens_meanwhile(tmp_path: Path) -> None:
    """As signaling does that takes the place of another."""
    async with AsyncExitStack() as stack:
        second = await stack.enter_async_context(running(Edge(tmp_path, 2)))
        async with running(Edge(tmp_path, 1)):
            await eventually(lambda: len(second.named) == 2)
            successor = await stack.enter_async_context(running(Edge(tmp_path, 1)))
            await eventually(lambda: len(successor.named) == 2)
        before = second.announcing.heard["taken"]
        await eventually(lambda: second.announcing.heard["taken"] > before + 8 and len(second.named) == 2)


async def test_whoever_has_other_keys_is_not_heard(tmp_path: Path) -> None:
    async with running(Edge(tmp_path, 1)) as first, running(Edge(tmp_path, 2, OTHERS)):
        assert first.announcing.heard["taken"] == 0
        async with running(Edge(tmp_path, 3)) as third:  # which hears both as far as it may
            named = ["192.0.2.3", "192.0.2.1"]
            await eventually(lambda: third.announcing.heard["taken"] >= 3 and third.named == named)
        assert first.named == ["192.0.2.1"]


async def test_garbage_is_counted_and_passed_over(tmp_path: Path) -> None:
    context = zmq.Context[zmq.Socket[bytes]]()
    voice = link.publisher(context, endpoint(tmp_path, 2), KEYS)
    try:
        async with running(Edge(tmp_path, 1)) as first:

            def say(message: bytes, outcome: str) -> bool:
                voice.send(message, zmq.NOBLOCK)
                return first.announcing.heard[outcome] > 0

            await eventually(lambda: say(b"E\xc1", "refused"))
            await eventually(lambda: say(encode(Heartbeat("nobody")), "unknown_edge"))
            assert len(first.named) == 1
            await eventually(lambda: say(encode(Heartbeat("edge-2")), "taken"))
            assert first.named == ["192.0.2.1", "192.0.2.2"]
    finally:
        context.destroy(linger=0)


def test_without_an_endpoint_nobody_is_told() -> None:
    async def go() -> None:
        announcing = Announcing(Peers("edge-1", ("192.0.2.1", 3478)), "", KEYS)
        await asyncio.wait_for(announcing.announce(), 20)
        announcing.close()

    asyncio.run(go())


def test_an_endpoint_that_is_taken_is_an_error(tmp_path: Path) -> None:
    context = zmq.Context[zmq.Socket[bytes]]()
    try:
        first = link.publisher(context, endpoint(tmp_path, 1), KEYS)
        with pytest.raises(zmq.ZMQError):
            link.publisher(context, endpoint(tmp_path, 1), KEYS)
        assert not first.closed
    finally:
        context.destroy(linger=0)
