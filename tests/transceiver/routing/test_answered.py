"""Calls whose process dies when they have been answered, and are not connected: the next one stands by the answer."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from routed import HOME, Caller, House, callers
from waiting import eventually

from rtc.dtls.secure import Certificate
from runtime.config import Agents
from transceiver.agents import echo
from transceiver.counters import KEPT, REVIVED
from transceiver.links.routing import Routing
from transceiver.realtime.protocol import Realtime
from transceiver.session import Session
from transceiver.state import SessionState, StateError
from transceiver.survival import half_open
from transceiver.survival.half_open import Answered
from transceiver.survival.keeper import Keeper
from transceiver.survival.vault import Vault, size_of
from transceiver.talk.talk import Talk

_COPY, _PARTS = 1 << 20, 1 << 20


class Mortal(House):
    """A transceiver whose process can die; its link is another's, so the caller's packets find the next one."""

    def __init__(self, slots: int = 2) -> None:
        super().__init__()
        self.memory = bytearray(size_of(slots, _COPY, _PARTS))
        self.reopened: list[Session] = []
        self.begin()

    def begin(self) -> None:
        self.vault = Vault(memoryview(self.memory), copy_bytes=_COPY, parts_bytes=_PARTS)
        self.keeper = Keeper(self.vault, self.routing, self._take_up, lambda session: None, self._reopen)

    def answers(self, **more: str) -> Caller:
        caller = Caller(self, HOME, **more)  # type: ignore[arg-type]
        caller.session._on_connected = self.keeper.begin_soon
        self.keeper.answered(caller.session)
        return caller

    def dies(self, *callers: Caller) -> int:
        """The process dies, and another takes its place; how many calls go on."""
        self.memory = bytearray(self.memory)
        link, self.routing = self.link, Routing()
        self.routing.link = link  # type: ignore[assignment]
        for caller in callers:
            caller.session.forsake()
        self.begin()
        revived = self.keeper.revive()
        for caller, session in zip(callers, self.reopened, strict=False):
            caller.session = session
        return revived

    def kept(self) -> int:
        return sum(self.vault.get(slot) is not None for slot in range(self.vault.slots))

    def _take_up(self, state: SessionState, elapsed_s: float) -> Session:
        raise AssertionError("no call is connected")

    def _reopen(self, answered: Answered, elapsed_s: float) -> Session:
        session = Session(
            answered.transport.offer,
            answered.ufrag,
            Talk("rtc_1", ("echo", echo.Agent), Realtime.taken_up(answered.protocol), config=Agents()),
            outbound=self.routing,
            pacer=self.pacer,
            backlog=self.backlog,
            certificate=Certificate.taken_up(answered.transport.certificate, answered.transport.key),
            on_end=lambda session: self.routing.remove(session.transport),
            on_connected=self.keeper.begin_soon,
            owner=answered.owner,
        )
        session.reopen(answered, elapsed_s)
        self.routing.add(session.transport)
        self.reopened.append(session)
        return session


async def connects(caller: Caller) -> None:
    """The caller checks again, as clients do, and shakes hands."""
    caller.check()
    await caller.secure.handshake(caller.answer.fingerprints)
    await eventually(lambda: not caller.session.half_open)
    await caller.echoed()


@pytest.mark.parametrize("setup", ["actpass", "active"])
async def test_a_call_that_nobody_has_checked_connects_with_the_next_process(setup: str) -> None:
    before = Counter(REVIVED)
    house = Mortal()
    caller = house.answers(setup=setup)
    async with callers(caller):
        ssrc = caller.session.stream.voice.ssrc
        assert house.dies(caller) == 1
        await connects(caller)
        assert {packet.ssrc for packet in caller.heard} == {ssrc}, "as the answer says"
        await eventually(lambda: len(house.keeper) == 1)
        assert house.kept() == 1, "the call stands where the answer stood"
        assert not half_open.is_one(next(filter(None, map(house.vault.get, range(2)))))
    assert dict(Counter(REVIVED) - before) == {"half_open": 1}
    assert house.kept() == 0


@pytest.mark.parametrize("setup", ["actpass", "active"])
async def test_the_handshake_begins_anew_where_nothing_of_it_had_come_to_the_client(setup: str) -> None:
    house = Mortal()
    caller = house.answers(setup=setup)
    async with callers(caller):
        caller.loses = 1 << 20
        caller.check()
        shaking = asyncio.create_task(caller.secure.handshake(caller.answer.fingerprints))
        await eventually(lambda: (1 << 20) - caller.loses > 1)  # ours goes on being lost
        assert house.dies(caller) == 1
        caller.loses = 0
        caller.check()
        await shaking
        await eventually(lambda: not caller.session.half_open)
        await caller.echoed()


async def test_the_answer_outlives_process_after_process_but_not_one_that_kills_each() -> None:
    house = Mortal()
    caller = house.answers()
    async with callers(caller):
        assert house.dies(caller) == 1
        assert house.dies(caller) == 1
        assert house.dies() == 0
        assert house.kept() == 0


async def test_a_call_that_ends_first_leaves_nothing() -> None:
    house = Mortal()
    caller = house.answers()
    async with callers(caller):
        assert house.kept() == 1
        caller.session.end("hangup")
        assert house.kept() == 0
        assert house.dies() == 0


async def test_credentials_of_an_ice_restart_are_kept_too() -> None:
    house = Mortal()
    caller = house.answers()
    async with callers(caller):
        caller.session.restart_ice("A" * 24, ("them", "their password of some length"), "192.0.2.1", 3478)
        house.keeper.answered(caller.session)
        before = caller.session.transport.ice
        assert house.dies(caller) == 1
        ice = house.reopened[0].transport.ice
        assert (ice.ufrags, ice.password, ice.remote) == (before.ufrags, before.password, before.remote)
        assert house.kept() == 1


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Counter(KEPT)
    house = Mortal(slots=1)
    caller, other = house.answers(), house.answers()
    async with callers(caller, other):
        assert house.kept() == 1
        monkeypatch.setattr(half_open, "_MOST_BYTES", 100)
        house.keeper.answered(caller.session)
    assert dict(Counter(KEPT) - before) == {"written": 1, "no_room": 1, "too_large": 1}


@pytest.mark.parametrize("garbage", [b"\xc1", b"\xc1\xc1", b"\xc1\x94\x7f\x00\x00\x80", b"\xc1\x94\x01\x00\x00\x80"])
async def test_garbage_is_left_out(garbage: bytes) -> None:
    with pytest.raises(StateError):
        half_open.read(garbage)
    house = Mortal()
    house.vault.put(0, garbage)
    assert house.dies() == 0
    assert house.kept() == 0
