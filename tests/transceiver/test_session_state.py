"""A session that leaves as bytes, and another that goes on: what the caller notices is nothing."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import pairwise

import msgspec
import pytest
from session_moves import MovingCall, a_moving_call
from session_run import of_type, until, voice

from transceiver import session, state
from transceiver.agents import echo, loopback
from transceiver.state import StateError

MOVES = 20


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks are made up for, however long the machine does something else."""
    monkeypatch.setattr(session, "_MOST_MADE_UP", 10_000)


def in_a_row(call: MovingCall) -> None:
    sequences, timestamps = [p.sequence for p in call.rtp], [p.timestamp for p in call.rtp]
    assert [n & 0xFFFF for n in range(sequences[0], sequences[0] + len(sequences))] == sequences
    assert {(b - a) & 0xFFFFFFFF for a, b in pairwise(timestamps)} == {960}
    assert len({packet.ssrc for packet in call.rtp}) == 1


def of_reading() -> int:
    """How many transports read DTLS."""
    return sum("Dtls" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def more_speech(call: MovingCall) -> None:
    sent = len(call.rtp)
    await until(lambda: len(call.rtp) > sent)


async def test_packets_are_passed_on_in_one_stream_through_twenty_moves() -> None:
    async with a_moving_call(echo.Agent) as call:
        payloads = voice(5 * MOVES)
        for n, payload in enumerate(payloads):
            call.speak(payload)
            if n % 5 == 2:
                await call.move()
        await until(lambda: len(call.rtp) == len(payloads))
        assert [packet.payload for packet in call.rtp] == payloads
        in_a_row(call)
        assert call.numbers().count("srtp") == len(payloads)
        assert call.session.stream.so_far()["lost"] == 0
        assert not call.ended


async def test_the_clock_of_what_is_said_goes_on_through_twenty_moves() -> None:
    async with a_moving_call(loopback.Agent) as call:
        for payload in voice(3 * MOVES):
            call.speak(payload)
            if len(call.rtp) % 3 == 1:
                await call.move()
            await more_speech(call)
        in_a_row(call)
        assert call.numbers().count("srtp") >= len(call.rtp)
        # What waited in the jitter buffer, or had been decoded, was heard.
        assert call.session.stream.so_far()["heard"].get("late", 0) == 0


async def test_events_keep_their_order_and_nobody_is_greeted_again() -> None:
    async with a_moving_call(echo.Agent) as call:
        channel = await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        for n in range(MOVES):
            update = {"type": "realtime", "instructions": f"{n}"}
            channel.send(json.dumps({"type": "session.update", "session": update}))
            await call.move()
        await until(lambda: len(of_type(call, "session.updated")) == MOVES)
        said = [event["session"]["instructions"] for event in of_type(call, "session.updated")]
        assert said == [str(n) for n in range(MOVES)]
        assert len(of_type(call, "session.created")) == 1
        assert call.session.talk.protocol.session["instructions"] == str(MOVES - 1)
        call.numbers()


async def test_a_session_that_is_not_taken_goes_on_itself() -> None:
    async with a_moving_call(loopback.Agent) as call:
        channel = await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        for payload in voice(10):
            call.speak(payload)
            await call.left()
            sent = len(call.sent)
            await asyncio.sleep(0)
            assert len(call.sent) == sent
            call.session.stay()
            channel.send('{"type":"session.update","session":{"type":"realtime"}}')
            await more_speech(call)
        await until(lambda: len(of_type(call, "session.updated")) == 10)
        in_a_row(call)
        call.numbers()
        await call.move()
        await more_speech(call)
        in_a_row(call)


async def test_one_that_was_taken_up_and_never_told_to_stay_sends_nothing() -> None:
    async with a_moving_call(loopback.Agent) as call:
        await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        found = await call.left()
        call.to_session(b"\x16\xfe\xfd" + bytes(20))
        other = call.taken_up(found)
        await asyncio.sleep(0.05)
        other.forsake()
        await other.closed()
        call.session.stay()
        await more_speech(call)
        in_a_row(call)
        call.numbers()
        assert not call.ended


async def test_what_is_too_late_to_be_made_up_for_is_time_that_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_MOST_MADE_UP", 0)
    async with a_moving_call(loopback.Agent) as call:
        await more_speech(call)
        await call.left()
        await asyncio.sleep(0.1)
        last = call.rtp[-1]
        call.session.stay()
        await more_speech(call)
        following = call.rtp[call.rtp.index(last) + 1]
        passed = (following.timestamp - last.timestamp) & 0xFFFFFFFF
        assert (following.sequence - last.sequence) & 0xFFFF == 1
        assert passed % 960 == 0
        assert passed >= 5 * 960


async def test_an_end_while_it_is_away_waits() -> None:
    async with a_moving_call(echo.Agent) as call:
        await call.left()
        call.session.end("hangup")
        assert not call.session.ended
        call.session.stay()
        assert call.session.ended == "hangup"
        await until(lambda: call.ended)


async def test_one_that_has_ended_cannot_leave() -> None:
    async with a_moving_call(echo.Agent) as call:
        call.session.end("hangup")
        with pytest.raises(StateError, match="not connected"):
            await call.session.hold()


async def test_garbage_is_no_state() -> None:
    async with a_moving_call(loopback.Agent) as call:
        await call.left()
        data = call.data
        call.session.stay()
        for broken in (
            b"",
            b"\xc1",
            data[:-1],
            data[: len(data) // 2],
            msgspec.msgpack.encode([state.VERSION, [1, 2]]),
        ):
            with pytest.raises(StateError, match=r"^no session's state: "):
                state.decoded(broken)
        known = f"^a session's state of version 9 cannot be taken up: {state.VERSION} is known here$"
        with pytest.raises(StateError, match=known):
            state.decoded(msgspec.msgpack.encode([9, {"whatever": 1}]))
        with pytest.raises(StateError, match="at most"):
            state.decoded(bytes(state.MOST_BYTES + 1))


@pytest.mark.parametrize("field", ["age_s", "tick_s"])
@pytest.mark.parametrize("odd", [float("inf"), float("-inf"), float("nan"), 1e300])
async def test_a_state_of_no_time_is_none(field: str, odd: float) -> None:
    async with a_moving_call(loopback.Agent) as call:
        found = await call.left()
        with pytest.raises(StateError, match="no session's state: it is of no time"):
            state.decoded(state.encoded(msgspec.structs.replace(found, **{field: odd})))
        call.session.stay()


@pytest.mark.parametrize("what", ["profile", "key", "ice", "sctp", "channels", "protocol"])
async def test_a_state_that_is_of_no_use_leaves_nothing_behind(what: str) -> None:
    async with a_moving_call(loopback.Agent) as call:
        await call.open_channel()
        found = await call.left()
        replace = msgspec.structs.replace
        transport, talk = found.transport, found.talk
        secure = transport.secure
        if what == "profile":
            dtls = replace(secure.dtls, srtp=replace(secure.dtls.srtp, profile=b"none"))
            transport = replace(transport, secure=replace(secure, dtls=dtls))
        elif what == "key":
            dtls = replace(secure.dtls, srtp=replace(secure.dtls.srtp, ours=b"short"))
            transport = replace(transport, secure=replace(secure, dtls=dtls))
        elif what == "ice":
            transport = replace(transport, ice=replace(transport.ice, selected=99))
        elif what == "sctp":
            assert secure.sctp is not None
            transport = replace(transport, secure=replace(secure, sctp=replace(secure.sctp, state="NONE")))
        elif what == "channels":
            assert secure.sctp is not None
            sctp = replace(secure.sctp, channels=secure.sctp.channels * 100)
            transport = replace(transport, secure=replace(secure, sctp=sctp))
        else:
            talk = replace(talk, host=replace(talk.host, state=b"\xc1"))
        await until(lambda: of_reading() == 1)  # the caller's own
        with pytest.raises(StateError, match=r"^the call cannot be taken up: "):
            call.taken_up(replace(found, transport=transport, talk=talk))
        await until(lambda: of_reading() == 1)
        call.session.stay()
        await more_speech(call)
        in_a_row(call)
        call.numbers()


@pytest.mark.parametrize("seed", range(4))
async def test_bytes_that_were_changed_are_refused_or_make_a_session(seed: int) -> None:
    chance = random.Random(seed)
    async with a_moving_call(loopback.Agent) as call:
        await call.open_channel()
        for payload in voice(5):
            call.speak(payload)
        await call.left()
        refused = 0
        for _ in range(50):
            data = bytearray(call.data)
            for _ in range(chance.choice((1, 2, 8))):
                data[chance.randrange(len(data))] = chance.randrange(256)
            try:
                other = call.taken_up(state.decoded(bytes(data)))
            except ValueError:  # StateError, or the protocol's
                refused += 1
                continue
            other.forsake()
            await other.closed()
        assert refused
        call.session.stay()
        await more_speech(call)
        in_a_row(call)
        call.numbers()
        assert not call.ended


async def test_a_snapshot_is_what_would_leave_and_changes_nothing() -> None:
    async with a_moving_call(loopback.Agent) as call:
        channel = await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        for n, payload in enumerate(voice(10), start=1):
            call.speak(payload)
            seen = state.decoded(state.encoded(call.session.snapshot()))
            assert seen.transport.secure.held == ()
            channel.send('{"type":"session.update","session":{"type":"realtime"}}')
            await until(lambda n=n: len(of_type(call, "session.updated")) == n)  # type: ignore[misc]
        await more_speech(call)
        found = call.session.snapshot()
        left = await call.left()
        assert (found.ufrag, found.media.voice.ssrc) == (left.ufrag, left.media.voice.ssrc)
        assert found.transport.secure.dtls.srtp.ours == left.transport.secure.dtls.srtp.ours
        assert found.channels == left.channels
        with pytest.raises(StateError, match="not connected"):
            call.session.snapshot()
        call.session.stay()
        await more_speech(call)
        in_a_row(call)
        call.numbers()
