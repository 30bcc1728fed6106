"""The ways to other hosts as the edge's supervisor keeps them: whom it asks, and whose answers open one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from waiting import eventually

from edge import between
from edge.between import Between
from edge.xdp import hops
from edge.xdp.hops import Found
from edge.xdp.ways import Hop
from runtime.config import Edge
from wire import address, keys
from wire.encapsulation import Probe, Probes, digest

HERE = address.pack("127.0.0.1", 0)[:16]
KEYS = keys.parse(keys.new_file_text(), Path("cluster.toml"))


class Ways(dict[int, bool]):
    """The map of ways, as whether each is open."""

    @property
    def open(self) -> dict[int, bool]:
        return dict(self)

    def put(self, number: int, hop: Hop, *, open: bool) -> bool:
        self[number] = open
        return True

    def close(self, number: int) -> bool:
        return self.put(number, None, open=False)  # type: ignore[arg-type]

    def remove(self, number: int) -> bool:
        return self.pop(number, None) is not None


class Host:
    """A transceiver on another host: what it is asked, and where it answers."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.pair: tuple[str, int] = self.socket.getsockname()
        self.asked: list[Probe] = []

    def says(self, probe: Probe, edge_port: int, secret: keys.ClusterKeys = KEYS) -> None:
        edge = HERE + edge_port.to_bytes(2, "big")
        self.socket.sendto(Probes(secret).dump(probe, edge), ("127.0.0.1", edge_port))


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The edge's port for answers, which nobody has."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", 0))
        number: int = sock.getsockname()[1]
    monkeypatch.setattr(between, "FIRST_PORT", number)
    return number


@pytest.fixture
def host(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """The transceiver 1, to whom XDP is said to bring what is sent."""
    host = Host()
    where = address.pack(*host.pair)
    hop = Hop(where, HERE, bytes(6), bytes(6), 1, 1500)
    source = HERE + port.to_bytes(2, "big")

    def redirect(program: int, frame: bytes, interface: str) -> None:
        probe = Probes(KEYS).read(frame[42:], source)
        assert probe is not None
        host.asked.append(probe)

    monkeypatch.setattr(hops, "find", lambda hosts: {number: Found(hop, True, where) for number in hosts})
    monkeypatch.setattr(hops, "barred", lambda *_: "")
    monkeypatch.setattr(between, "redirector", lambda interface: socket.socket().detach())
    monkeypatch.setattr(between, "redirect", redirect)
    yield host
    host.socket.close()


@contextlib.asynccontextmanager
async def keeping(ways: Ways, hosts: dict[int, tuple[str, int]], express: str = "between") -> AsyncIterator[Between]:
    rows = [SimpleNamespace(id=n, endpoint=f"tcp://{at[0]}:{at[1]}") for n, at in hosts.items()]
    listings: Any = SimpleNamespace(refresh=lambda: None, value=SimpleNamespace(transceivers=rows))
    edge = Edge(interface="eth0", express=express)
    kept: Any = ways
    keeper = Between(edge, lambda: KEYS, lambda: kept, lambda: None, set, listings, structlog.get_logger())
    task = asyncio.create_task(keeper.serve())
    try:
        yield keeper
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_an_answer_opens_the_way_and_a_forged_one_does_not(host: Host, port: int) -> None:
    ways = Ways()
    async with keeping(ways, {1: host.pair}) as keeper:
        await eventually(lambda: host.asked)
        assert ways == {1: False}
        asked = host.asked[-1]
        assert (asked.kind, asked.open, asked.transceiver, asked.edge) == ("ask", False, 1, digest(b"edge"))
        assert keeper.gauges() == {("1", "unanswered"): 0}
        other_keys = keys.parse(keys.new_file_text(), Path("cluster.toml"))
        late = len(host.asked)
        while len(host.asked) < late + 2:  # whatever it says, for the last question as well as the one before
            asked = host.asked[-1]._replace(kind="answer")
            host.says(asked, port, other_keys)
            host.says(asked._replace(transceiver=2), port)
            host.says(asked._replace(clock_ns=asked.clock_ns - 1), port)
            host.says(asked._replace(kind="ask"), port)
            host.socket.sendto(b"x", ("127.0.0.1", port))
            await asyncio.sleep(0.02)
        assert ways == {1: False}

        def answered() -> bool:
            host.says(host.asked[-1]._replace(kind="answer"), port)
            return ways == {1: True}

        await eventually(answered)
        assert keeper.gauges() == {("1", ""): 1}
        await eventually(lambda: host.asked[-1].open)  # and it is told that callers may be answered so


async def test_a_way_that_nobody_answers_for_is_closed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.otherhosts.GONE_S", 0.2)
    ways = Ways({1: True})
    async with keeping(ways, {1: host.pair}) as keeper:
        await eventually(lambda: ways == {1: False})
        assert keeper.gauges() == {("1", "unanswered"): 0}


async def test_where_the_port_is_taken_every_way_is_closed(host: Host, port: int) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        taken.bind(("::", port))
        ways = Ways({1: True, 7: True})
        async with keeping(ways, {1: host.pair}) as keeper:
            await eventually(lambda: ways == {1: False, 7: False})
            assert keeper.gauges() == {}


async def test_where_it_is_off_every_way_is_closed(host: Host) -> None:
    ways = Ways({1: True})
    async with keeping(ways, {1: host.pair}, express="off"):
        await eventually(lambda: ways == {1: False})
    assert host.asked == []
