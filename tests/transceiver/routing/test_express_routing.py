"""Media past an edge's workers, both ways, behind the real routing: whose it is, and what is none."""

from __future__ import annotations

import time
from collections import Counter
from itertools import repeat

import pytest
from routed import ELSEWHERE, HOME, VICTIM, Caller, House, callers, connect
from waiting import eventually

from rtc.rtp import packet as rtp
from transceiver.counters import RX_DATAGRAMS


def now() -> repeat[float]:
    """The time at which each of a batch came."""
    return repeat(time.monotonic())


@pytest.fixture
async def house() -> House:
    return House()


class Written:
    """A way past the workers that writes down what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, bytes]] = []

    def send(self, where: bytes, datagram: bytes) -> None:
        self.sent.append((where, datagram))


def protected(caller: Caller) -> bytes:
    """Its next packet, that nobody has got yet."""
    packet = rtp.build(
        caller.answer.payload_type, False, caller.sequence, 960 * caller.sequence, caller.ssrc, bytes(60)
    )
    caller.sequence += 1
    return caller.secure.protect(packet)


async def test_media_that_came_past_the_workers_is_a_calls_as_any_other(house: House) -> None:
    caller = Caller(house, HOME)
    async with callers(caller):
        await connect(caller)
        heard, counted = len(caller.heard), RX_DATAGRAMS.total()
        house.routing.on_express(b"edge", [(HOME, protected(caller)), (HOME, protected(caller))], now())
        await eventually(lambda: len(caller.heard) >= heard + 2)
        assert RX_DATAGRAMS.total() == counted + 2


async def test_what_came_past_the_workers_by_no_path_of_a_calls_is_counted_and_dropped(house: House) -> None:
    caller = Caller(house, HOME)
    async with callers(caller):
        await connect(caller)
        check = caller.check(VICTIM)
        await caller.echoed()
        # The caller's own media from elsewhere, a check, and the same by another edge: a worker's to bring.
        told, sent = len(house.link.told), len(house.link.sent)
        media, before = protected(caller), Counter(RX_DATAGRAMS)
        house.routing.on_express(b"edge", [(ELSEWHERE, media), (ELSEWHERE, check), (ELSEWHERE, b"")], now())
        house.routing.on_express(b"other", [(HOME, media)], now())
        assert Counter(RX_DATAGRAMS) - before == {"unknown_path": 4}
        assert (len(house.link.told), len(house.link.sent)) == (told, sent)
        house.routing.on_express(b"edge", [(HOME, check), (HOME, b"")], now())
        assert Counter(RX_DATAGRAMS) - before == {"unknown_path": 4, "other": 2}


async def test_media_alone_goes_to_callers_past_the_workers(house: House) -> None:
    caller, way = Caller(house, HOME), Written()
    async with callers(caller):
        await connect(caller)
        house.routing.expressways = {b"other": way}
        await caller.echoed()
        assert way.sent == []
        house.routing.expressways = {b"edge": way}
        by_worker = len(house.link.sent)
        caller.speak()
        await eventually(lambda: len(way.sent) >= 3)
        assert {where for where, _ in way.sent} == {HOME}
        assert all(128 <= datagram[0] <= 191 for _, datagram in way.sent)
        caller.check()
        caller.session.end("hangup")
        await caller.session.closed()
        assert all(datagram[0] < 128 for _, datagram in house.link.sent[by_worker:])
        assert len(house.link.sent) > by_worker
