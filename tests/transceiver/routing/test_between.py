"""The express path to edges of other hosts at the transceiver: what it believes, what comes by it, and what goes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterable, Sequence

import pytest
from waiting import eventually

from rtc.ice.lite import Path
from rtc.pacer import Pacer
from runtime.address import Endpoint
from runtime.config import Transceiver
from transceiver.counters import RX_EXPRESS
from transceiver.links.between import Between
from wire import address
from wire.encapsulation import MOST_BYTES, PORTS, PROBE_BYTES, Head, Probe, Probes, digest, port_of
from wire.keys import ClusterKeys
from wire.messages import Ticket

KEYS = ClusterKeys({1: bytes(16)}, 1, bytes(range(32)))
NUMBER = 5
WORKER = b"edge/worker-0"
CALLER = address.pack("192.0.2.1", 40000)
PATH = Path(b"edge", CALLER)
RTP = bytes([0x80, 111]) + bytes(60)


class Routing:
    """The routing of a transceiver that has one path, written down."""

    all_wait = False

    def __init__(self) -> None:
        self.paths = {PATH}
        self.came: list[tuple[bytes, bytes, bytes]] = []
        self.told: list[Path] = []

    def on_express(self, edge: bytes, batch: Sequence[tuple[bytes, bytes]], came_s: Iterable[float]) -> None:
        self.came += [(edge, client, datagram) for client, datagram in batch]

    def holds(self, path: Path) -> bool:
        return path in self.paths

    def tell_anew(self, path: Path) -> None:
        self.told.append(path)


def bound_for_a_flow(sock: socket.socket) -> Head:
    """The head of a flow whose port at the edge is free; the socket is bound to it then."""
    for number in range(77, 77 + PORTS):
        with contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port_of(number)))
            return Head(number, b"a ticket")
    raise AssertionError("every port of the edge is taken")


class House:
    """A transceiver, and an edge on another host."""

    def __init__(self) -> None:
        self.routing = Routing()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        config = Transceiver(id=NUMBER, endpoint=Endpoint(f"tcp://127.0.0.1:{self.port}"), express="between")
        self.between = Between(config, lambda: KEYS, self.routing, Pacer())
        self.edge = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.head = bound_for_a_flow(self.edge)
        self.edge.setblocking(False)
        self.address = address.pack("127.0.0.1", self.edge.getsockname()[1])

    def says(self, datagram: bytes, sock: socket.socket | None = None) -> None:
        (sock or self.edge).sendto(datagram, ("127.0.0.1", self.port))

    def asks(self, **changed: object) -> Probe:
        probe = Probe("ask", True, NUMBER, digest(b"edge"), time.time_ns())._replace(**changed)  # type: ignore[arg-type]
        self.says(Probes(KEYS).dump(probe, self.address))
        return probe

    async def hears(self) -> bytes:
        async with asyncio.timeout(30):
            return await asyncio.get_running_loop().sock_recv(self.edge, 4096)

    async def opened(self) -> None:
        """Returns when the way is open, and a ticket is known for the one path."""
        self.asks()
        await self.hears()
        self.between.ticket(WORKER, Ticket(address=CALLER, number=self.head.number, ticket=self.head.ticket))


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    task = asyncio.create_task(house.between.run())
    house.says(b"")
    await eventually(lambda: house.between._way is not None)
    yield house
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    house.edge.close()


async def test_an_edge_that_asks_is_answered_and_may_give_tickets(house: House) -> None:
    assert house.between.number(PATH) is None
    asked = house.asks()
    said = await house.hears()
    assert (len(said), Probes(KEYS).read(said, house.address)) == (PROBE_BYTES, asked._replace(kind="answer"))
    assert house.between.number(PATH) == 0
    assert house.between.number(Path(b"other", CALLER)) is None
    house.between.ticket(WORKER, Ticket(address=CALLER, number=house.head.number, ticket=house.head.ticket))
    assert (house.between.number(PATH), house.routing.told) == (house.head.number, [PATH])


async def test_a_way_that_is_not_open_yet_is_answered_and_not_used(house: House) -> None:
    house.asks(open=False)
    await house.hears()
    assert house.between.number(PATH) is None


async def test_media_comes_by_its_ticket_and_goes_back_with_it_to_where_it_came_from(house: House) -> None:
    await house.opened()
    assert not house.between.send(PATH, RTP)  # nobody has seen the client there yet
    house.says(house.head.dump() + RTP)
    await eventually(lambda: len(house.routing.came) == 1)
    assert house.routing.came == [(b"edge", CALLER, RTP)]
    assert house.between.send(PATH, RTP + b"back")
    assert await house.hears() == house.head.dump() + RTP + b"back"
    assert not house.between.send(PATH, bytes(MOST_BYTES + 1))
    assert not house.between.send(Path(b"edge", address.pack("192.0.2.2", 40000)), RTP)


async def test_what_carries_no_ticket_is_counted_and_reaches_nobody(house: House) -> None:
    await house.opened()
    before = dict(RX_EXPRESS)
    elsewhere = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elsewhere.bind(("127.0.0.2", 0))
    forged = [
        house.head.dump()[:8] + b"another." + RTP,
        Head(house.head.number + 1, house.head.ticket).dump() + RTP,
        b"\2" + house.head.dump()[1:] + RTP,
        RTP,
        b"x",
        Head(0, house.head.ticket).dump() + RTP,
    ]
    for datagram in forged:
        house.says(datagram)
    beside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    beside.bind(("127.0.0.1", 0))
    # The right ticket, from a host that is not the edge's, and from a port of the edge's that is not the flow's.
    house.says(house.head.dump() + RTP, elsewhere)
    house.says(house.head.dump() + RTP, beside)
    await eventually(lambda: RX_EXPRESS["refused"] == before["refused"] + len(forged) + 2)
    assert house.routing.came == []
    house.says(house.head.dump() + RTP)
    await eventually(lambda: len(house.routing.came) == 1)
    assert RX_EXPRESS["taken"] == before["taken"] + 1
    for sock in (elsewhere, beside):
        sock.close()


async def test_a_probe_that_is_old_or_another_s_opens_nothing(house: House) -> None:
    before = RX_EXPRESS["refused"]
    now = time.time_ns()
    house.asks(clock_ns=now, open=False)
    await house.hears()
    house.asks(clock_ns=now - 1)
    house.asks(clock_ns=now + 1, transceiver=NUMBER + 1)
    house.asks(clock_ns=now + 2, kind="answer")
    house.says(Probes(KEYS).dump(Probe("ask", True, NUMBER, digest(b"edge"), now + 3), CALLER))
    house.says(bytes(PROBE_BYTES))
    await eventually(lambda: RX_EXPRESS["refused"] == before + 5)
    assert house.between.number(PATH) is None


async def test_a_ticket_is_taken_for_paths_that_are_here_and_ends_with_them(house: House) -> None:
    other = address.pack("192.0.2.9", 1)
    await house.opened()
    house.between.ticket(WORKER, Ticket(address=other, number=9, ticket=bytes(8)))
    assert house.between.number(Path(b"edge", other)) == 0
    house.routing.paths.clear()
    await eventually(lambda: house.between.number(PATH) == 0)


async def test_an_edge_that_asks_no_more_has_no_way(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transceiver.links.between.GONE_S", 0.0)
    await house.opened()
    await eventually(lambda: house.between.number(PATH) is None)
    assert not house.between.send(PATH, RTP)
    house.says(house.head.dump() + RTP)  # its supervisor may be away, and XDP is not
    await eventually(lambda: len(house.routing.came) == 1)


async def test_nothing_is_opened_unless_it_is_wanted() -> None:
    config = Transceiver(id=NUMBER, endpoint=Endpoint("tcp://127.0.0.1:7400"))
    between = Between(config, lambda: KEYS, Routing(), Pacer())
    between.ticket(WORKER, Ticket(address=CALLER, number=9, ticket=bytes(8)))
    assert between.number(PATH) is None
    assert not between.send(PATH, RTP)
