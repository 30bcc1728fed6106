"""Hand-overs of calls: a real call between the routings of two transceivers, with the links between these. The worker
is played; it is never told where calls are, so everything is passed on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import zmq
from routed import EDGE, ELSEWHERE, HOME, KEYS, SOURCE, WORKER, Caller, Source, Target, callers, connect
from session_moves import Sent
from waiting import eventually
from wiring import Said, heard, hello_back, raw

from rtc.dtls.srtp import PROFILES
from rtc.ice.lite import Path
from rtc.rtp import packet as rtp
from transceiver import state
from transceiver.handover.line import NotTaken
from transceiver.refusing import RequestError
from transceiver.session import Session
from wire import link, messages
from wire.messages import Neighbour
from wire.naming import through

REPORT = bytes.fromhex("80c90001 00000001")  # of a receiver that has heard nothing (RFC 3550 section 6.4.2)


class Played:
    """A transceiver that reserves a place, and then does what ``does`` says about the call: "nothing", "dies" or
    "garbage"; or one that is "deaf" from the beginning, or "other" in the versions that it speaks."""

    def __init__(self, endpoint: str, does: str) -> None:
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.router = link.router(self.context, endpoint, KEYS)
        self.does = does
        self.said: list[str] = []
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self.router.closed:
            await asyncio.sleep(0.001)
            if not self.router.poll(0):
                continue
            peer, message = self.router.recv_multipart()
            said = heard(message)
            if not isinstance(said, Said):
                continue
            self.said.append(said.type)
            if said.type == "hello" and self.does == "other":
                self.router.send_multipart([peer, hello_back(said, 90, 91)])
            elif said.type == "hello" and self.does != "deaf":
                self.router.send_multipart([peer, hello_back(said)])
            elif said.type == "call.reserve":
                self.router.send_multipart([peer, raw("call.reserved", request=said.fields["request"])])
            elif said.type == "call.take" and self.does == "dies":
                self.router.close()
            elif said.type == "call.take" and self.does == "garbage":
                for reply in (b"\xff", raw("call.taken", request=99), raw("session.answer", request=1), raw("call.x")):
                    self.router.send_multipart([peer, reply])

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.context.destroy(linger=0)


@pytest.fixture
async def target(there: Neighbour, patient: None) -> AsyncIterator[Target]:
    """One that answers."""
    target = Target(there.endpoint)
    yield target
    await target.close()


def sent_once(source: Source, profile: bytes = b"") -> Sent:
    """What was sent to the caller, by its numbers; without ``profile``, no RTCP. Raises AssertionError where one was
    used twice."""
    sent = Sent(profile or next(iter(PROFILES)))
    for datagram in source.link.to(HOME):
        if profile or not rtp.is_rtcp(datagram):
            sent.add(datagram)
    return sent


def in_order(caller: Caller) -> bool:
    """Whether its sequence numbers follow one another."""
    numbers = [packet.sequence for packet in caller.heard]
    return all((after - before) & 0xFFFF == 1 for before, after in pairwise(numbers))


async def test_a_call_goes_on_at_the_other_one_with_the_next_number(
    source: Source, target: Target, there: Neighbour
) -> None:
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await caller.echoed()
        caller.session.transport.send_rtcp(REPORT)
        await source.leaving.hand_over(caller.session, there)
        assert source.gone == [caller.session]
        await eventually(lambda: [session.ufrag for session in target.sessions] == [caller.session.ufrag])
        for _ in range(3):
            await caller.echoed()
        assert in_order(caller)
        session = target.sessions[0]
        session.transport.send_rtcp(REPORT)
        await eventually(lambda: sent_once(source, target.profile).count("srtcp"))
        assert sent_once(source, target.profile).count("srtp") >= 4
        # Its checks are answered by the one that has it.
        before = len(source.link.to(HOME))
        caller.check()
        await eventually(lambda: any(said[0] <= 3 for said in source.link.to(HOME)[before:]))
        assert source.leaving.where(caller.session.ufrag) == 2


async def test_workers_and_signaling_are_told_where_it_is(source: Source, target: Target, there: Neighbour) -> None:
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await source.leaving.hand_over(caller.session, there)
        told = {peer: said for peer, said in source.told.messages if isinstance(said, messages.Moved)}
        assert told[WORKER] == messages.Moved(ufrags=[caller.session.ufrag], to=2, addresses=[HOME])
        assert told[EDGE] == messages.Moved(ufrags=[caller.session.ufrag], to=2)


async def test_the_near_way_is_taken_when_the_worker_says_so(source: Source, target: Target, there: Neighbour) -> None:
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await source.leaving.hand_over(caller.session, there)
        await eventually(lambda: target.sessions)
        (session,) = target.sessions
        assert target.routing.workers_of(session.transport) == {through(WORKER, SOURCE)}
        target.routing.steered(b"edge/worker-1", [ELSEWHERE])
        assert target.routing.workers_of(session.transport) == {through(WORKER, SOURCE)}
        target.routing.steered(WORKER, [HOME])
        assert target.routing.workers_of(session.transport) == {WORKER}


async def test_a_caller_that_moves_after_its_call_did_is_found(
    source: Source, target: Target, there: Neighbour
) -> None:
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await source.leaving.hand_over(caller.session, there)
        caller.moves(ELSEWHERE)
        caller.speak()
        caller.check()
        await eventually(lambda: ("path.up", ELSEWHERE) in source.link.told)
        await caller.echoed()


async def test_what_comes_while_a_call_is_nobody_s_waits(source: Source, target: Target, there: Neighbour) -> None:
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await caller.echoed()
        moving = asyncio.create_task(source.leaving.hand_over(caller.session, there))
        await eventually(lambda: caller.session.away or moving.done())
        heard_so_far = len(caller.heard)
        for _ in range(5):
            caller.speak()
        await moving
        await eventually(lambda: len(caller.heard) == heard_so_far + 5)
        assert in_order(caller)


async def test_pictures_and_speech_go_ahead_of_their_call(
    source: Source, target: Target, there: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transceiver.handover.copying._PIECE_S", 30.0)
    urls = ["data:image/png;base64," + letter * (3 << 20) for letter in "abc"]
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        for url in urls:
            item = {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": url}]}
            caller.session.talk.client_event(json.dumps({"type": "conversation.item.create", "item": item}))
        await eventually(lambda: sum(map(len, caller.session.snapshot().parts)) == sum(map(len, urls)))
        await source.leaving.hand_over(caller.session, there)
        await eventually(lambda: target.sessions)
        assert target.asked.count("call.part") == sum(-(-len(url) // messages.MAX_PIECE_BYTES) for url in urls)
        assert target.asked[-2:] == ["call.take", "call.go_on"]
        assert target.sessions[0].snapshot().parts == [url.encode() for url in urls]
        await caller.echoed()
        assert in_order(caller)


async def test_what_goes_ahead_is_bounded_and_forgotten_with_its_place(target: Target) -> None:
    name, piece = "A" * 24, bytes(messages.MAX_PIECE_BYTES)
    said = messages.Part(ufrag=name, part=0, data=piece)
    with pytest.raises(RequestError, match="no place"):
        target.taking.part(SOURCE, said)
    target.taking.reserve(SOURCE, messages.Reserve(ufrag=name, agent="echo"))
    for _ in range((64 << 20) // len(piece)):
        target.taking.part(SOURCE, said)
    with pytest.raises(RequestError) as refused:
        target.taking.part(SOURCE, said)
    assert refused.value.code == "too_large"
    assert len(target.taking) == 0


async def test_a_call_comes_back(source: Source, target: Target, there: Neighbour) -> None:
    """As far as the one is concerned to which it comes back."""
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await source.leaving.hand_over(caller.session, there)
        source.leaving.came_back(caller.session.ufrag)
        assert source.leaving.where(caller.session.ufrag) is None
        assert source.routing.elsewhere(caller.session.ufrag.encode()) is None
        assert source.routing.elsewhere(Path(b"edge", HOME)) is None


# --- where it stays


async def stays(source: Source, caller: Caller, there: Neighbour, code: str) -> None:
    """The call is not taken, and goes on here with the numbers that it had."""
    await caller.echoed()
    with pytest.raises(NotTaken) as refused:
        await source.leaving.hand_over(caller.session, there)
    assert refused.value.code == code
    assert source.gone == []
    for _ in range(3):
        await caller.echoed()
    assert in_order(caller)
    sent_once(source)
    assert caller.session.movable
    assert not any(isinstance(said, messages.Moved) for _, said in source.told.messages)


async def test_a_call_stays_where_there_is_no_room(source: Source, target: Target, there: Neighbour) -> None:
    target.full = True
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await stays(source, caller, there, "full")
        assert target.asked == ["call.reserve"], "it was not asked to be silent for that"


async def test_a_call_stays_whose_state_is_of_another_version(
    source: Source, target: Target, there: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = Caller(source, HOME)
    encoded = state.encoded
    monkeypatch.setattr(state, "encoded", lambda value: b"\x92\x7f" + encoded(value)[2:])
    async with callers(caller):
        await connect(caller)
        await stays(source, caller, there, "other_state")
        assert len(target.taking) == 0


async def test_a_call_that_cannot_go_on_after_all_ends_where_it_went(
    source: Source, target: Target, there: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(session: Session) -> None:
        raise OverflowError("an odd state")

    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        monkeypatch.setattr(Session, "_keep_time", fail)
        await source.leaving.hand_over(caller.session, there)
        await eventually(lambda: [session.ended for session in target.sessions] == ["session_failed"])
        assert len(target.taking) == 0


async def test_a_call_stays_whose_state_is_too_large(
    source: Source, target: Target, there: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = Caller(source, HOME)
    monkeypatch.setattr(state, "encoded", lambda value: bytes(messages.MAX_STATE_BYTES + 1))
    async with callers(caller):
        await connect(caller)
        await stays(source, caller, there, "too_large")
        await eventually(lambda: target.asked[-1] == "call.dropped" and len(target.taking) == 0)


async def test_a_call_stays_where_nobody_is(source: Source, there: Neighbour) -> None:
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        await stays(source, caller, there, "gone")


@pytest.mark.parametrize("does", ["nothing", "dies", "garbage"])
async def test_a_call_stays_where_the_other_fails_half_way(source: Source, there: Neighbour, does: str) -> None:
    played = Played(there.endpoint, does)
    caller = Caller(source, HOME)
    try:
        async with callers(caller):
            await connect(caller)
            await stays(source, caller, there, "gone")
            if does == "nothing":
                await eventually(lambda: played.said[-1] == "call.dropped")
    finally:
        await played.close()


@pytest.mark.parametrize(
    ("does", "why"), [("deaf", "transceiver 2 does not answer"), ("other", "wire version 90 to 91, this side")]
)
async def test_whoever_does_not_greet_is_not_said_to_be_of_an_older_release(
    source: Source, there: Neighbour, monkeypatch: pytest.MonkeyPatch, does: str, why: str
) -> None:
    monkeypatch.setattr("transceiver.handover.leaving._CONNECT_S", 0.5 if does == "deaf" else 30.0)
    played = Played(there.endpoint, does)
    caller = Caller(source, HOME)
    try:
        async with callers(caller):
            await connect(caller)
            with pytest.raises(NotTaken, match=why) as refused:
                await source.leaving.hand_over(caller.session, there)
            assert refused.value.code == "gone"
            await caller.echoed()
    finally:
        await played.close()


# --- who takes


async def a_state(source: Source, caller: Caller) -> bytes:
    """The call's, which then stays."""
    await caller.session.hold()
    data = state.encoded(caller.session.leave())
    caller.session.stay()
    return data


@pytest.mark.parametrize(
    "garbage", [b"", b"\xc1", b"\x92\x01\x80", b"\x92\x7f\x80", bytes(1000), b"\xdd\xff\xff\xff\xff"]
)
async def test_garbage_is_refused_and_leaves_nothing(target: Target, garbage: bytes) -> None:
    name = "A" * 24
    target.taking.reserve(SOURCE, messages.Reserve(ufrag=name, agent="echo"))
    with pytest.raises(RequestError) as refused:
        target.taking.take(SOURCE, messages.Take(ufrag=name, state=garbage))
    assert refused.value.code == "other_state"
    assert len(target.taking) == 0
    assert target.routing.elsewhere(name.encode()) is None


async def test_only_a_transceiver_hands_calls_over_and_only_where_it_has_a_place(target: Target) -> None:
    wanted = messages.Reserve(ufrag="A" * 24, agent="echo")
    for peer in (EDGE, through(WORKER, SOURCE)):
        with pytest.raises(RequestError):
            target.taking.reserve(peer, wanted)
    with pytest.raises(RequestError, match="no place"):
        target.taking.take(SOURCE, messages.Take(ufrag=wanted.ufrag, state=b""))
    target.taking.reserve(SOURCE, wanted)
    with pytest.raises(RequestError, match="no place"):
        target.taking.take(b"@3.other", messages.Take(ufrag=wanted.ufrag, state=b""))


async def test_places_are_bounded_and_given_up(target: Target) -> None:
    names = [f"{i:024}" for i in range(65)]
    for name in names[:64]:
        target.taking.reserve(SOURCE, messages.Reserve(ufrag=name, agent="echo"))
    with pytest.raises(RequestError, match="already"):
        target.taking.reserve(SOURCE, messages.Reserve(ufrag=names[64], agent="echo"))
    target.taking.sweep(asyncio.get_running_loop().time() + 10)
    assert len(target.taking) == 0


@pytest.mark.parametrize("how", ["dropped", "late"])
async def test_a_call_that_was_taken_and_stays_elsewhere_says_nothing_here(
    source: Source, target: Target, how: str
) -> None:
    caller = Caller(source, HOME)
    async with callers(caller):
        await connect(caller)
        data, name = await a_state(source, caller), caller.session.ufrag
        target.taking.reserve(SOURCE, messages.Reserve(ufrag=name, agent="echo"))
        target.taking.take(SOURCE, messages.Take(ufrag=name, state=data, paths=[(HOME, WORKER)]))
        assert name in target.taking
        target.taking.go_on(b"@3.other", messages.GoOn(ufrag=name))
        assert target.sessions == []
        if how == "dropped":
            target.taking.dropped(SOURCE, messages.Dropped(ufrag=name))
        else:
            target.taking.sweep(asyncio.get_running_loop().time() + 10)
        assert len(target.taking) == 0
        target.taking.go_on(SOURCE, messages.GoOn(ufrag=name))
        assert target.sessions == []
        assert not target.routing.transports
        await caller.echoed()
