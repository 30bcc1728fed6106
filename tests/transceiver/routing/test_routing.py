"""The routing of paths: real sessions behind the real routing, and a link that records what it is given."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from routed import ELSEWHERE, HOME, VICTIM, Caller, House, callers, connect
from waiting import eventually

from rtc.ice.lite import Path
from rtc.rtp import packet as rtp
from transceiver.counters import RX_DATAGRAMS
from transceiver.transport import Transport
from wire import address


@pytest.fixture
async def house() -> House:
    return House()


@pytest.mark.parametrize("setup", ["actpass", "active"])
async def test_a_call_is_set_up_with_nothing_more_to_wait_for(house: House, setup: str) -> None:
    caller = Caller(house, HOME, setup=setup)
    async with callers(caller):
        await connect(caller)
        await caller.echoed()
        assert caller.session.transport.ice.is_proved(Path(b"edge", HOME))


@pytest.mark.parametrize("setup", ["actpass", "active"])
async def test_a_flight_that_was_lost_is_sent_again_to_who_checked_once_and_answers(house: House, setup: str) -> None:
    caller = Caller(house, HOME, setup=setup)
    caller.loses = 1
    async with callers(caller):
        await connect(caller)
        await caller.echoed()


async def test_anothers_check_from_a_callers_address_takes_neither_its_voice_nor_its_ears(house: House) -> None:
    caller, thief = Caller(house, HOME), Caller(house, ELSEWHERE)
    async with callers(caller):
        await connect(caller)
        for _ in range(3):
            thief.check(HOME)
            await caller.echoed()
        # As long as nothing is answered there with its password.
        assert thief.session.transport.ice.selected is None
        assert caller.session.transport.ice.selected == Path(b"edge", HOME)
        thief.session.end("shutdown")
        await thief.session.closed()
        assert ("path.down", HOME) not in house.link.told
        await caller.echoed()


async def test_a_port_that_is_used_for_another_call_is_the_other_calls(house: House) -> None:
    first, second = Caller(house, HOME), Caller(house, HOME)
    async with callers(first):
        await connect(first)
    second.moves(HOME)
    async with callers(second):
        await connect(second)
        await second.echoed()


async def test_a_port_that_is_used_again_while_the_first_call_stands_is_the_others_when_it_answers(
    house: House,
) -> None:
    first, second = Caller(house, HOME), Caller(house, HOME)
    reading = asyncio.create_task(first.read())
    await connect(first)
    reading.cancel()
    second.moves(HOME)
    async with callers(second):
        await connect(second)
        await second.echoed()
        assert first.session.transport.ice.paths == ()
        first.session.end("hangup")
        await first.session.closed()
        await second.echoed()


async def test_an_overheard_check_from_elsewhere_moves_nothing_and_is_not_answered(house: House) -> None:
    caller = Caller(house, HOME)
    async with callers(caller):
        await connect(caller)
        overheard = caller.check()
        before = Counter(RX_DATAGRAMS)
        for _ in range(20):
            house.deliver(VICTIM, overheard)
            await caller.echoed()
        assert house.link.to(VICTIM) == []
        assert RX_DATAGRAMS["stun_replayed"] - before["stun_replayed"] == 20
        assert ("path.up", VICTIM) not in house.link.told


@pytest.mark.parametrize("setup", ["actpass", "active"])
@pytest.mark.parametrize("checks", [1, 8])
async def test_a_bystander_draws_less_than_three_times_what_was_sent_in_its_name(
    house: House, setup: str, checks: int
) -> None:
    """The first path of a call begins DTLS at once; another is asked whether it is there."""
    invented, live = Caller(house, VICTIM, setup=setup), Caller(house, HOME)
    bystander = address.pack("203.0.113.10", 10)
    async with callers(live):
        await connect(live)
        for _ in range(checks):
            invented.check(VICTIM)
            live.check(bystander)
            if setup == "active":
                house.deliver(VICTIM, bytes.fromhex("16feff") + bytes(200))
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.2)  # until all that is sent again has been
        for _ in range(3):
            invented.session.sweep(time.monotonic())
            live.session.sweep(time.monotonic())
        for where in (VICTIM, bystander):
            drawn = sum(map(len, house.link.to(where)))
            assert 0 < drawn < 3 * house.received[where], (drawn, house.received[where])
        await live.echoed()
        invented.session.end("shutdown")
        await invented.session.closed()


async def test_a_caller_whose_address_changed_is_followed_by_its_media_and_by_its_check(house: House) -> None:
    caller = Caller(house, HOME)
    async with callers(caller):
        await connect(caller)
        caller.moves(ELSEWHERE)
        await caller.echoed()
        assert caller.session.transport.ice.paths == (Path(b"edge", ELSEWHERE),)
        assert ("path.down", HOME) in house.link.told
        caller.moves(HOME)
        caller.check()
        await eventually(lambda: caller.session.transport.ice.selected == Path(b"edge", HOME))
        await caller.echoed()


async def test_keep_alives_say_nothing_and_are_counted(house: House) -> None:
    before = Counter(RX_DATAGRAMS)
    house.deliver(HOME, bytes.fromhex("001100002112a442") + bytes(12))
    assert Counter(RX_DATAGRAMS) - before == {"stun_indication": 1}
    assert house.link.sent == house.link.told == []


async def test_a_storm_of_checks_is_told_to_the_edge_now_and_then(house: House) -> None:
    caller = Caller(house, HOME)
    async with callers(caller):
        await connect(caller)
        began = time.monotonic()
        for _ in range(1000):
            caller.check()
        told = house.link.told.count(("path.up", HOME))
        assert told <= 3 + (time.monotonic() - began)


async def test_many_calls_with_one_ssrc_do_not_multiply_the_work_and_the_first_is_still_followed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = Caller(house, HOME)
    async with callers(caller):
        await connect(caller)
        caller.speak()
        namesakes = [Caller(house, ELSEWHERE, ssrc=caller.ssrc) for _ in range(60)]
        tried = 0
        before = Transport.media_if_authentic

        def counting(transport: Transport, datagram: bytes) -> bool:
            nonlocal tried
            tried += 1
            return before(transport, datagram)

        monkeypatch.setattr(Transport, "media_if_authentic", counting)
        for i in range(100):
            house.deliver(VICTIM, rtp.build(111, False, i, 960 * i, caller.ssrc, bytes(60)))
        assert tried <= 4 * 100
        caller.moves(address.pack("192.0.2.2", 2))
        await caller.echoed()
        for each in namesakes:
            each.session.end("shutdown")
            await each.session.closed()
