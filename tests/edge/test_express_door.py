"""The express path's agreement, both sides of it: sockets are handed over, taken back, and kept for whoever comes next.
XDP's maps are written down instead."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import socket
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from waiting import eventually

from edge import express as edges
from edge import silence
from edge.express import Express
from edge.sockets import express_sockets, media_sockets
from edge.xdp.express_ports import ExpressPorts
from rtc.pacer import Pacer
from runtime import logs
from runtime.address import Address
from runtime.config import Edge
from runtime.process import instance
from runtime.supervision.store import Store
from transceiver.links import express as transceivers
from transceiver.links.expressway import Batch, Take
from wire import address, express
from wire.express import Off
from wire.keys import ClusterKeys

KEYS = ClusterKeys({1: bytes(16)}, 1, bytes(range(32)))
OTHERS = ClusterKeys({1: bytes(16)}, 1, bytes(32))
CLIENT = address.pack("192.0.2.7", 40007)


class Ports:
    """What XDP would be told."""

    def __init__(self) -> None:
        self.of: dict[int, int] = {}
        self.sees = itertools.repeat(0)
        self.guarded: set[int] = set()
        self.clients: bytes | None = CLIENT

    @property
    def by_transceiver(self) -> dict[int, int]:
        return dict(self.of)

    def guard(self, ports: Collection[int]) -> None:
        self.guarded = set(ports)

    def seen(self, transceiver: int) -> int:
        return next(self.sees)

    def client(self, transceiver: int) -> bytes | None:
        return self.clients

    def put(self, transceiver: int, port: int) -> bool:
        assert port in self.guarded
        self.of[transceiver] = port
        return True

    def remove(self, transceiver: int) -> bool:
        return self.of.pop(transceiver, None) is not None


class Kept(Store):
    """A store that outlives its supervisor."""

    def __init__(self, held: dict[str, int] | None = None) -> None:
        super().__init__()
        self.kept: dict[str, int] = held or {}
        self._hold({name: os.dup(fd) for name, fd in self.kept.items()})

    def keep(self, name: str, fd: int) -> None:
        super().keep(name, fd)
        self.kept[name] = os.dup(fd)

    def drop(self, name: str) -> None:
        super().drop(name)
        if name in self.kept:
            os.close(self.kept.pop(name))

    def close(self) -> None:
        for name in (*self.names, *self.kept):
            self.drop(name)


class House:
    """An edge's express path and those of transceivers, on this host."""

    def __init__(self, run: Path) -> None:
        self.run, self.ports, self.store, self.mode = run, Ports(), Kept(), "auto"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.media = Address(f"127.0.0.1:{free.getsockname()[1]}")
        self.xdp, self.firewall, self.attached = True, False, "native"
        self.probed: list[tuple[str, int]] = []
        self.said: list[dict[tuple[str, ...], float]] = []  # by the edge, at each probe
        self.workers: list[socket.socket] = []

    def probe(self, interface: str, host: str, port: int, payload: bytes, source: tuple[str, int]) -> None:
        """What XDP's probe does where nothing keeps it back."""
        self.probed.append(source)
        self.said.append(gauges(self.now))
        if not self.firewall:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(payload, (host, port))

    def edge(self) -> Express:
        settings = Edge.model_construct(name="edge", run=self.run, media=self.media, express=self.mode, interface="x")
        ports = cast(ExpressPorts, self.ports)
        now = lambda: ports if self.xdp else None  # noqa: E731
        how = lambda: self.attached  # noqa: E731
        made = Express(settings, instance(self.run), lambda: KEYS, now, self.store, logs.get(), self.probe, how)
        self.now, self.workers = made, media_sockets(self.media, 2, self.store, made.turn_away())
        made.take_over()
        return made

    @asynccontextmanager
    async def serves(self, late_s: float = 0.0) -> AsyncIterator[Express]:
        """An edge that ends as one that is killed does: nobody is told. It has its door before it attends to it."""
        made = self.edge()
        await asyncio.sleep(late_s)
        task = asyncio.create_task(made.serve())
        try:
            yield made
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            kept = (sock for pair in made._kept.values() for sock in pair)
            for sock in (*made._connections, *kept, *self.workers, *([made._door] if made._door else [])):
                sock.close()

    @asynccontextmanager
    async def transceiver(
        self, number: int = 1, keys: ClusterKeys = KEYS, took: Take = lambda *_: None
    ) -> AsyncIterator[transceivers.Express]:
        made = transceivers.Express(self.run, number, lambda: keys, took, lambda: False, Pacer())
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            made.close()
            await asyncio.sleep(0)  # its tasks end


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(transceivers, "_LOOK_S", 0.01)
    monkeypatch.setattr(transceivers, "_REFUSED_S", 0.02)
    made = House(tmp_path)
    yield made
    made.store.close()


def gauges(made: Express) -> dict[tuple[str, ...], float]:
    (family,) = made.metrics.collect()
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


async def test_a_transceiver_reads_and_answers_by_the_sockets_that_it_is_given(house: House) -> None:
    took: list[tuple[bytes, Batch]] = []
    async with (
        house.serves() as edge,
        house.transceiver(7, took=lambda edge, batch, _: took.append((edge, batch))) as ours,
    ):
        await eventually(lambda: 7 in house.ports.by_transceiver)
        assert gauges(edge) == {("7", ""): 1.0}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.1", 0))
            client.settimeout(30)
            client.sendto(b"\x80up", ("127.0.0.1", house.ports.by_transceiver[7]))
            here = address.pack("127.0.0.1", client.getsockname()[1])
            await eventually(lambda: took == [(b"edge", [(here, b"\x80up")])])
            ours.ways[b"edge"].send(here, b"\x80down")
            await asyncio.sleep(0)
            assert client.recvfrom(100) == (b"\x80down", house.media.pair)


async def test_media_goes_by_the_workers_when_the_transceiver_ends_and_its_port_stays_open(house: House) -> None:
    async with house.serves() as edge:
        async with house.transceiver(7):
            await eventually(lambda: 7 in house.ports.by_transceiver)
            port = house.ports.by_transceiver[7]
        await eventually(lambda: not house.ports.by_transceiver)
        assert gauges(edge) == {}
        assert house.ports.guarded == {port}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", port))
            for _ in range(2):  # the second would say that the port is closed
                client.send(b"\x80late")
        took: list[Batch] = []
        async with house.transceiver(7, took=lambda _, batch, came_s: took.append(batch)):
            await eventually(lambda: house.ports.by_transceiver == {7: port})
            await eventually(lambda: [datagram for batch in took for _, datagram in batch] == [b"\x80late"] * 2)


@pytest.mark.parametrize("why", ["off", "no_xdp", "generic", "another_host"])
async def test_where_it_cannot_be_the_reason_is_said(house: House, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "off":
        house.mode = "off"
    house.xdp = why != "no_xdp"
    house.attached = "generic" if why == "generic" else "native"
    if why == "another_host":
        monkeypatch.setattr(transceivers, "instance", lambda folder: "elsewhere")
    async with house.serves() as edge, house.transceiver(7) as ours:
        await eventually(lambda: gauges(edge) == {("7", why): 0.0})
        assert ours.ways == {}
        assert house.ports.by_transceiver == {}


async def test_where_a_firewall_keeps_the_probe_back_nothing_is_sent_that_way(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transceivers, "_PROBED_S", 0.05)
    house.firewall = True
    async with house.serves() as edge, house.transceiver(7) as ours:
        await eventually(lambda: gauges(edge) == {("7", "unheard"): 0.0} and len(house.said) > 2)
        assert (house.said[0], house.said[2]) == ({}, {("7", "unheard"): 0.0}), "not on before it is heard"
        assert (ours.ways, house.ports.by_transceiver) == ({}, {})
        house.firewall = False
        await eventually(lambda: gauges(edge) == {("7", ""): 1.0})
        assert 7 in house.ports.by_transceiver


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silence is judged within a twentieth of a second."""
    monkeypatch.setattr(transceivers, "_SAYS_EVERY_S", 0.01)
    monkeypatch.setattr(silence, "DOUBTED_S", 0.02)
    monkeypatch.setattr(silence, "SILENT_S", 0.05)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("client", [CLIENT, None])
async def test_where_nothing_comes_of_what_xdp_passes_media_goes_by_the_workers(
    house: House, client: bytes | None
) -> None:
    async with house.serves() as edge, house.transceiver(7) as ours:
        await eventually(lambda: gauges(edge) == {("7", ""): 1.0})
        house.firewall, house.ports.clients = True, client
        house.ports.sees = itertools.count()  # type: ignore[assignment]
        await eventually(lambda: gauges(edge) == {("7", "silent"): 0.0} and not ours.ways)
        assert house.ports.by_transceiver == {}


@pytest.mark.usefixtures("impatient")
async def test_a_client_whose_own_packets_are_wrong_puts_nobody_s_way_off(house: House) -> None:
    """Media of his goes there, and none arrives; what is sent in his name from here does."""
    took: list[bytes] = []
    async with (
        house.serves() as edge,
        house.transceiver(7, took=lambda _, batch, came_s: took.extend(datagram for _, datagram in batch)),
    ):
        await eventually(lambda: gauges(edge) == {("7", ""): 1.0})
        house.ports.sees = itertools.count()  # type: ignore[assignment]
        await eventually(lambda: len(took) >= 10)  # a silence each
        assert gauges(edge) == {("7", ""): 1.0}
        assert 7 in house.ports.by_transceiver
    assert set(house.probed[-10:]) == {address.unpack(CLIENT)}
    assert {datagram[0] for datagram in took} == {4}


@pytest.mark.usefixtures("impatient")
async def test_it_has_another_try_later_and_each_time_later_than_the_last(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edges, "_SILENT_S", 0.1)
    async with house.serves() as edge, house.transceiver(7):
        pauses = []
        for _ in range(2):
            await eventually(lambda: 7 in house.ports.by_transceiver)
            house.firewall, house.ports.sees = True, itertools.count()  # type: ignore[assignment]
            await eventually(lambda: 7 not in house.ports.by_transceiver)
            house.firewall, house.ports.sees = False, itertools.repeat(0)
            pauses.append(edge._silent[7][1])
        await eventually(lambda: 7 in house.ports.by_transceiver)
        assert pauses == pytest.approx([0.1, 1.0])


async def test_who_holds_other_keys_gets_nothing(house: House) -> None:
    async with house.serves() as edge, house.transceiver(7, OTHERS) as stranger:
        door = asyncio.Event()
        async with house.transceiver(8) as ours:
            await eventually(lambda: 8 in house.ports.by_transceiver)
            assert ours.ways.keys() == {b"edge"}
            door.set()
        assert stranger.ways == {}
        assert "7" not in {key[0] for key in gauges(edge)}


async def test_of_two_with_one_id_the_first_is_heard(house: House) -> None:
    async with house.serves() as edge, house.transceiver(7) as first:
        await eventually(lambda: 7 in house.ports.by_transceiver)
        async with house.transceiver(7) as second:
            await eventually(lambda: ("7", "held") in gauges(edge))
            assert (first.ways.keys(), second.ways) == ({b"edge"}, {})
            assert 7 in house.ports.by_transceiver


async def test_the_next_supervisor_hands_the_same_sockets_over(house: House) -> None:
    async with house.transceiver(7) as ours:
        async with house.serves():
            await eventually(lambda: 7 in house.ports.by_transceiver)
            way, port = ours.ways[b"edge"], house.ports.by_transceiver[7]
        house.store = Kept(house.store.kept)
        # Nobody withdrew it: XDP, which outlives supervisors, goes on.
        assert house.ports.by_transceiver == {7: port}
        house.ports.of = {7: port, 9: port + 1}
        async with house.serves() as edge:
            assert house.ports.by_transceiver == {7: port}
            await eventually(lambda: gauges(edge) == {("7", ""): 1.0})
            assert ours.ways[b"edge"] is way


async def test_one_that_does_not_come_back_is_withdrawn(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house.transceiver(7), house.serves():
        await eventually(lambda: 7 in house.ports.by_transceiver)
    house.store = Kept(house.store.kept)
    house.ports.of = {7: next(iter(house.ports.guarded))}
    monkeypatch.setattr(edges, "_RETURNS_WITHIN_S", 0.05)
    async with house.serves():
        await eventually(lambda: not house.ports.by_transceiver)


async def test_a_supervisor_that_takes_its_time_is_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transceivers, "_GREETS_WITHIN_S", 0.05)
    monkeypatch.setattr(transceivers, "_REFUSED_S", 3600)
    async with house.transceiver(7), house.serves(late_s=0.3):
        monkeypatch.setattr(transceivers, "_GREETS_WITHIN_S", 30)
        await eventually(lambda: 7 in house.ports.by_transceiver)


@pytest.mark.parametrize("accepted", [False, True])
async def test_one_that_ended_before_it_spoke_keeps_nobody_from_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch, accepted: bool
) -> None:
    monkeypatch.setattr(transceivers, "_REFUSED_S", 3600)
    path = express.door_of(house.run, "edge")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as door:
        door.bind(str(path))
        door.listen()
        async with house.transceiver(7):
            if accepted:
                (await asyncio.get_running_loop().sock_accept(door))[0].close()
            else:
                await eventually(lambda: select.select([door], [], [], 0)[0])
            door.close()
            async with house.serves():
                await eventually(lambda: 7 in house.ports.by_transceiver)


async def test_a_supervisor_without_it_has_transceivers_close_their_sockets(house: House) -> None:
    async with house.transceiver(7) as ours:
        async with house.serves():
            await eventually(lambda: 7 in house.ports.by_transceiver)
        house.store, house.mode = Kept(house.store.kept), "off"
        house.ports.of = {7: next(iter(house.ports.guarded))}
        async with house.serves():
            assert not house.ports.by_transceiver
            await eventually(lambda: not ours.ways)


async def test_an_edge_that_ends_says_so(house: House) -> None:
    async with house.transceiver(7) as ours, house.serves() as edge:
        await eventually(lambda: 7 in house.ports.by_transceiver)
        edge.close()
        await eventually(lambda: not ours.ways)
        assert not express.door_of(house.run, "edge").exists()
        house.store.close()
        for worker in house.workers:
            worker.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(house.media.pair)


async def test_a_port_that_transceivers_of_a_killed_edge_hold_is_given_back(house: House) -> None:
    async with house.transceiver(7) as ours:
        async with house.serves():
            await eventually(lambda: 7 in house.ports.by_transceiver)
        house.store.close()
        house.store = Kept()
        edge = await asyncio.to_thread(house.edge)
        assert not ours.ways
        edge.close()
        for worker in house.workers:
            worker.close()


async def test_strangers_at_the_door_are_shown_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "_GREETS_WITHIN_S", 0.05)
    monkeypatch.setattr(edges, "_MOST", 4)
    async with house.serves() as edge:
        strangers = []
        for said in (b"", b"junk", Off("").dump(), bytes(1500), b"", b""):
            stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stranger.connect(str(express.door_of(house.run, "edge")))
            if said:
                stranger.send(said)
            strangers.append(stranger)
        await eventually(lambda: edge._connections)
        await eventually(lambda: not edge._connections)
        async with house.transceiver(7):
            await eventually(lambda: 7 in house.ports.by_transceiver)
        for stranger in strangers:
            stranger.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_socket_to_send_by_receives_nothing(host: str) -> None:
    """It shares the port with the workers' sockets, and the kernel may choose among these alone."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((host, 0))
        media = Address(f"[{host}]:{free.getsockname()[1]}" if ":" in host else f"{host}:{free.getsockname()[1]}")
    store = Store()
    workers = media_sockets(media, 2, store)
    pairs = [express_sockets(media, number, store) for number in range(3)]
    senders = [socket.socket(free.family, socket.SOCK_DGRAM) for _ in range(64)]
    try:
        for sender in senders:
            sender.sendto(b"\x80", media.pair)
        heard = 0
        for worker in workers:
            worker.setblocking(False)
            with suppress(BlockingIOError):
                while worker.recv(100):
                    heard += 1
        assert heard == len(senders)
        for sock in (sock for pair in pairs for sock in pair):
            with pytest.raises(BlockingIOError):
                sock.recv(100)
        # And it sends from there, to anybody.
        senders[0].settimeout(30)
        pairs[0][1].sendto(b"\x80back", senders[0].getsockname()[:2])
        assert senders[0].recvfrom(100)[1][:2] == media.pair
    finally:
        everything: list[Any] = [*workers, *senders, *(sock for pair in pairs for sock in pair)]
        for sock in everything:
            sock.close()
