"""The transceiver's end of the links: who is full or gone costs nobody else anything, and media goes before control."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgpack
import pytest
import zmq
from waiting import eventually
from wiring import Said, heard, raw

from runtime import logs
from transceiver.counters import CONTROL, TX_DATAGRAMS, WIRE_ERRORS
from transceiver.links.link import Link
from wire import frames, link
from wire.frames import Data
from wire.keys import ClusterKeys
from wire.messages import Event, PathDown, PathUp
from wire.versions import VERSION

KEYS = ClusterKeys({1: bytes(16)}, 1, bytes(32))
CLIENT = bytes(range(18))
SLOW, QUICK = b"edge/worker-0", b"edge/worker-1"
BIG = bytes(60_000)


class Ends:
    """A transceiver's link, and workers by name."""

    def __init__(self, directory: Path) -> None:
        self.context = zmq.Context[zmq.Socket[bytes]]()
        endpoint = f"ipc://{directory}/link"
        self.heard: list[tuple[bytes, Data | Said]] = []
        router = link.router(self.context, endpoint, KEYS)
        self.link = Link(router, lambda *said: self.heard.append(said), lambda *said: self.heard.append(said))
        self.workers = {name: link.media_dealer(self.context, endpoint, name, KEYS)[0] for name in (SLOW, QUICK)}
        self.got: dict[bytes, list[Data | Said]] = {SLOW: [], QUICK: []}

    async def linked(self) -> None:
        """Waits until both have been heard."""

        def both() -> bool:
            for dealer in self.workers.values():
                if dealer.poll(0, zmq.POLLOUT):
                    dealer.send(raw("health", request=1), zmq.NOBLOCK)
            return {name for name, _ in self.heard} == set(self.workers)

        await eventually(both)

    def drain(self, name: bytes) -> list[Data | Said]:
        """All that ``name`` has been told."""
        while self.workers[name].poll(0):
            self.got[name].append(heard(self.workers[name].recv()))
        return self.got[name]

    async def fill(self) -> int:
        """Sends to SLOW until something has been dropped. Returns how many it sent."""
        before, sent = TX_DATAGRAMS["edge_full"], 0
        while TX_DATAGRAMS["edge_full"] == before:
            self.link.send(SLOW, CLIENT, sent.to_bytes(4, "big") + BIG)
            sent += 1
            await asyncio.sleep(0.001)
        return sent

    def heard_by_slow(self) -> list[int]:
        """The numbers of those of ``fill`` that arrived."""
        batches = [said for said in self.drain(SLOW) if isinstance(said, Data)]
        return [int.from_bytes(datagram[:4], "big") for batch in batches for _, datagram in batch.datagrams()]


@pytest.fixture
async def ends(tmp_path: Path) -> AsyncIterator[Ends]:
    ends = Ends(tmp_path)
    await ends.linked()
    yield ends
    ends.link.close()
    ends.context.destroy(linger=0)


async def test_a_worker_that_reads_nothing_costs_another_nothing(ends: Ends) -> None:
    await ends.fill()
    before = TX_DATAGRAMS["sent"]
    ends.link.send(QUICK, CLIENT, b"for the quick one")
    await asyncio.sleep(0)
    await eventually(lambda: any(isinstance(s, Data) and s.body == b"for the quick one" for s in ends.drain(QUICK)))
    assert TX_DATAGRAMS["sent"] > before


async def test_the_oldest_media_goes_and_the_newest_arrives(ends: Ends) -> None:
    first = newest = await ends.fill()

    def newest_arrives() -> bool:
        nonlocal newest
        ends.link.send(SLOW, CLIENT, newest.to_bytes(4, "big"))  # on a busy machine this one may get too old as well
        newest += 1
        return max(ends.heard_by_slow(), default=0) >= first

    await eventually(newest_arrives)
    heard = ends.heard_by_slow()
    assert heard == sorted(set(heard))
    assert set(range(first)) - set(heard)


async def test_control_is_not_dropped_where_media_is(ends: Ends) -> None:
    before = Counter(CONTROL)
    await ends.fill()
    for i in range(200):
        ends.link.control(SLOW, PathUp(address=CLIENT, ufrag="", ssrcs=[i]))
    dropped = TX_DATAGRAMS["edge_full"]
    await eventually(lambda: TX_DATAGRAMS["edge_full"] > dropped)  # media goes on getting too old

    def told() -> list[int]:
        return [said.fields["ssrcs"][0] for said in ends.drain(SLOW) if isinstance(said, Said)]

    await eventually(lambda: len(told()) == 200)
    assert told() == list(range(200))
    assert Counter(CONTROL) - before == {"sent": 200}


async def test_control_that_nobody_reads_is_bounded_in_bytes(ends: Ends) -> None:
    before = CONTROL["edge_full"]
    for _ in range(200):
        ends.link.control(SLOW, Event(ufrag="", event="x" * (1 << 20)))
    dropped = CONTROL["edge_full"] - before
    assert dropped >= 50  # 64 MiB wait here, up to 80 with ZeroMQ and in the kernel


async def test_media_does_not_overtake_the_path_that_it_needs(ends: Ends) -> None:
    await ends.fill()
    ends.link.control(SLOW, PathUp(address=CLIENT, ufrag="", ssrcs=[]))
    ends.link.send(SLOW, CLIENT, b"response")
    await eventually(lambda: any(isinstance(s, Data) and s.body == b"response" for s in ends.drain(SLOW)))
    said = ends.got[SLOW]
    up = next(i for i, message in enumerate(said) if isinstance(message, Said))
    response = next(i for i, message in enumerate(said) if isinstance(message, Data) and message.body == b"response")
    assert up < response


async def test_a_worker_that_is_gone_is_counted_and_what_waited_for_it_with_it(ends: Ends) -> None:
    await ends.fill()
    ends.link.control(SLOW, PathUp(address=CLIENT, ufrag="", ssrcs=[]))
    gone, control = TX_DATAGRAMS["edge_gone"], CONTROL["edge_gone"]
    ends.workers[SLOW].close()
    await eventually(lambda: CONTROL["edge_gone"] == control + 1)

    def counted() -> bool:
        ends.link.send(SLOW, CLIENT, b"x")
        return TX_DATAGRAMS["edge_gone"] > gone

    await eventually(counted)


async def test_a_message_that_cannot_be_read_is_counted(ends: Ends) -> None:
    before = WIRE_ERRORS["refused"]
    ends.workers[QUICK].send(b"\xc1")
    ends.workers[QUICK].send_multipart([b"two", b"parts"])
    await eventually(lambda: WIRE_ERRORS["refused"] == before + 2)


async def test_an_edge_of_another_version_is_one_line_and_many_counts(
    ends: Ends, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", "json")
    before = WIRE_ERRORS["other_version"]
    for i in range(20):
        ends.workers[QUICK].send(msgpack.packb([VERSION + 1 + i % 2, "control", {"type": "x"}]))
    await eventually(lambda: WIRE_ERRORS["other_version"] == before + 20)
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["edge"] == QUICK.decode()
    ends.workers[SLOW].send(frames.pack_batch([(CLIENT, b"goes on")]))
    await eventually(lambda: any(isinstance(said, Data) and said.body == b"goes on" for _, said in ends.heard))


async def test_names_that_come_and_go_are_forgotten_and_who_stays_is_served(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transceiver.links.link.MOST_PEERS", 4)
    for i in range(12):
        name = b"edge/worker-%d" % (100 + i)
        passing = link.dealer(ends.context, f"ipc://{tmp_path}/link", name, KEYS)
        await eventually(lambda passing=passing: passing.poll(0, zmq.POLLOUT))
        passing.send(raw("health", request=1), zmq.NOBLOCK)
        await eventually(lambda name=name: any(peer == name for peer, _ in ends.heard))
        assert ends.link.peers <= 4
        passing.close(linger=0)
    for name in (QUICK, SLOW):
        ends.workers[name].send(frames.pack_batch([(CLIENT, b"still here")]))
        await eventually(lambda name=name: any(peer == name and isinstance(m, Data) for peer, m in ends.heard))
        ends.link.send(name, CLIENT, b"heard")
        await eventually(lambda name=name: any(isinstance(s, Data) and s.body == b"heard" for s in ends.drain(name)))
    assert ends.link.peers <= 4


async def test_one_that_is_gone_is_forgotten_before_one_that_is_there(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that who is there is told of calls that move, whoever else has come meanwhile."""
    here = [SLOW, QUICK]
    assert ends.link.listeners(VERSION) == here
    gone = link.dealer(ends.context, f"ipc://{tmp_path}/link", b"edge/worker-9", KEYS)
    await eventually(lambda: gone.poll(0, zmq.POLLOUT))
    gone.send(raw("health", request=1), zmq.NOBLOCK)
    await eventually(lambda: b"edge/worker-9" in ends.link.listeners(VERSION))
    gone.close(linger=0)
    before = CONTROL["edge_gone"]

    def noticed() -> bool:
        ends.link.control(b"edge/worker-9", PathDown(address=CLIENT))
        return CONTROL["edge_gone"] > before

    await eventually(noticed)
    monkeypatch.setattr("transceiver.links.link.MOST_PEERS", 3)
    new = link.dealer(ends.context, f"ipc://{tmp_path}/link", b"edge/worker-10", KEYS)
    await eventually(lambda: new.poll(0, zmq.POLLOUT))
    new.send(raw("health", request=1), zmq.NOBLOCK)
    await eventually(lambda: b"edge/worker-10" in ends.link.listeners(VERSION))
    assert sorted(ends.link.listeners(VERSION)) == sorted([*here, b"edge/worker-10"])
    new.close(linger=0)


async def test_a_stamp_is_given_back_once_with_the_time_that_it_was_held(ends: Ends) -> None:
    stamp = time.monotonic_ns()
    heard = len(ends.heard)
    ends.workers[QUICK].send(frames.pack_batch([(CLIENT, b"up")], stamp_ns=stamp))
    await eventually(lambda: len(ends.heard) > heard)
    for _ in range(2):
        ends.link.send(QUICK, CLIENT, b"down")
        await asyncio.sleep(0)
    await eventually(lambda: len(ends.drain(QUICK)) == 2)
    elapsed = time.monotonic_ns() - stamp
    first, second = ends.got[QUICK]
    assert isinstance(first, Data)
    assert isinstance(second, Data)
    assert first.stamp_ns == stamp
    assert 0 < first.held_ns < elapsed
    assert (second.stamp_ns, second.held_ns) == (0, 0)


async def test_a_flood_in_one_message_leaves_the_loop_to_others_in_between(ends: Ends) -> None:
    """Every piece keeps its order, and something that is due is done before the last."""
    took: list[int] = []
    at_turn: list[int] = []
    turn = 0

    def slow(peer: bytes, batch: Data) -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.001:
            pass
        took.extend(int.from_bytes(datagram, "big") for _, datagram in batch.datagrams())
        at_turn.append(turn)

    ends.link._on_data = slow
    ends.workers[QUICK].send(frames.pack_batch([(CLIENT, i.to_bytes(2, "big")) for i in range(500)]))
    ends.workers[QUICK].send(frames.pack_batch([(CLIENT, (500).to_bytes(2, "big"))]))
    deadline = time.monotonic() + 30
    while len(took) < 501 and time.monotonic() < deadline:
        turn += 1
        await asyncio.sleep(0)
    assert took == list(range(501))
    assert len(set(at_turn)) >= 10
