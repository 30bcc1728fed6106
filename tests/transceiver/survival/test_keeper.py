"""Calls whose process dies: whoever takes their states up goes on, and uses no number again."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import cast

import pytest
from session_moves import MovingCall
from session_run import gained, of_type, until

from caller.voice import generated
from rtc.codecs.opus import Encoder
from rtc.rtp import packet as rtp
from transceiver import state
from transceiver.agents import Base, echo, parrot
from transceiver.counters import KEPT, REVIVED
from transceiver.links.elsewhere import Elsewhere
from transceiver.links.routing import Routing
from transceiver.parts import Sound
from transceiver.realtime.conversation import ConversationState
from transceiver.realtime.state import decoded
from transceiver.session import Session
from transceiver.state import SessionState
from transceiver.survival import keeper as under_test
from transceiver.survival.half_open import Answered
from transceiver.survival.keeper import Keeper, Kept
from transceiver.survival.vault import Vault, size_of
from transceiver.transport import Transport

_COPY, _PARTS = 1 << 20, 16 << 20


def _nothing_is_answered(answered: Answered, elapsed_s: float) -> Session:
    raise AssertionError("every call is connected")


class Ways:
    """Routing, as far as the keeper is concerned."""

    def ways(self, transport: Transport) -> tuple[tuple[bytes, bytes], ...]:
        return tuple((path.address, b"edge/worker-0") for path in transport.ice.paths)

    def arrive(self, transport: Transport, elsewhere: Elsewhere) -> None:
        self.paths = elsewhere.paths


class MortalCall(MovingCall):
    """A call that is kept, and whose process can die."""

    def __init__(self, agent: type[Base]) -> None:
        super().__init__(agent)
        self.memory = bytearray(size_of(2, _COPY, _PARTS))
        self.begin_keeper()

    def begin_keeper(self) -> None:
        self.vault = Vault(memoryview(self.memory), copy_bytes=_COPY, parts_bytes=_PARTS)
        self.keeper = Keeper(
            self.vault, cast("Routing", Ways()), self.take_up, lambda session: None, _nothing_is_answered
        )
        self.running = asyncio.create_task(self.keeper.run())

    def take_up(self, found: SessionState, elapsed_s: float) -> Session:
        self.session = self.taken_up(found)
        return self.session

    def die(self) -> None:
        """The process ends between two of its steps, and leaves what is in its memory."""
        self.running.cancel()
        former, self.memory = self.session, bytearray(self.memory)
        former.transport.kept = None  # what waits there is never sent
        former.forsake()

    def dies(self) -> int:
        """The process dies, and another takes its place."""
        self.die()
        self.begin_keeper()
        return self.keeper.revive()


@asynccontextmanager
async def a_kept_call(agent: type[Base]) -> AsyncIterator[MortalCall]:
    call = MortalCall(agent)
    try:
        await call.connect()
        call.keeper.begin(call.session)
        yield call
    finally:
        call.running.cancel()
        await call.close()
        await asyncio.sleep(0)


async def hears(call: MortalCall, frames: int) -> None:
    heard = len(call.rtp)
    await until(lambda: len(call.rtp) >= heard + frames)


async def says(call: MortalCall, frames: int, pcm: bytes = b"") -> None:
    """The caller says so many frames of ``pcm``, or of silence, and hears one for each."""
    encoder = Encoder(24000)
    for at in range(0, 960 * frames, 960):
        call.speak(encoder.encode(pcm[at : at + 960].ljust(960, b"\0")))
        await hears(call, 1)


def to_be_heard(call: MortalCall) -> int:
    """The bytes of the agent's speech that have not been sent."""
    found = call.session.snapshot()
    segments = decoded(found.talk.conversation, ConversationState).speaking.playback.segments
    return sum(len(Sound.taken_up(segment[2], found.parts, 1 << 30)) for segment in segments)


def rtp_sequences(call: MortalCall) -> list[int]:
    sent = (datagram for datagram in call.sent if rtp.is_rtp_or_rtcp(datagram) and not rtp.is_rtcp(datagram))
    return [int.from_bytes(datagram[2:4], "big") for datagram in sent]


def profile_of(call: MortalCall) -> None:
    """Has ``numbers`` know how the call's packets are protected."""

    call.data = state.encoded(call.session.snapshot())


async def test_a_call_whose_process_dies_again_and_again_goes_on_and_uses_no_number_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(under_test, "_MOST_TRIES", 100)
    chance = random.Random(5)
    before = Counter(REVIVED)
    async with a_kept_call(parrot.Agent) as call:
        channel = await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        profile_of(call)
        for n in range(8):
            await hears(call, chance.randrange(1, 20))
            assert call.dies() == 1
            await asyncio.sleep(0)
            channel.send(json.dumps({"type": "session.update", "session": {"type": "realtime"}, "event_id": f"e{n}"}))
            await until(lambda n=n: len(of_type(call, "session.updated")) == n + 1)  # type: ignore[misc]
            await hears(call, 2)
        sent = call.numbers()
        assert sent.count("srtp") > 50
        assert sent.count("srtcp")
        assert sent.count("dtls") > 8
        assert not of_type(call, "error")
    assert gained(before, REVIVED) == {"taken_up": 8}


async def test_an_answer_that_is_spoken_is_spoken_on_or_ended_in_order() -> None:
    async with a_kept_call(parrot.Agent) as call:
        channel = await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        profile_of(call)
        encoder, pcm = Encoder(24000), generated(5, seed=3).pcm(24000)[:48000] + bytes(48000)
        for at in range(0, len(pcm), 960):
            call.speak(encoder.encode(pcm[at : at + 960]))
            await hears(call, 1)
        await until(lambda: of_type(call, "output_audio_buffer.started"))
        await hears(call, 5)
        call.dies()
        await until(lambda: of_type(call, "response.done"))
        await until(lambda: of_type(call, "output_audio_buffer.stopped"))
        (done,) = of_type(call, "response.done")
        assert done["response"]["status"] in ("completed", "incomplete", "cancelled", "failed")
        item = done["response"]["output"][0]["id"]
        channel.send(json.dumps({"type": "conversation.item.retrieve", "item_id": item}))
        await until(lambda: of_type(call, "conversation.item.retrieved"))
        call.numbers()


async def test_an_answer_goes_on_where_its_caller_has_heard_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_kept_call(parrot.Agent) as call:
        await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        await says(call, 50, generated(5, seed=3).pcm(24000))
        await says(call, 50)
        await until(lambda: of_type(call, "response.output_audio_transcript.done"))
        monkeypatch.setattr(under_test, "_EVERY_S", 3600.0)  # what is kept grows old
        call.keeper.write(cast("Kept", call.session.transport.kept))
        written = to_be_heard(call)
        await hears(call, 20)
        before, sent = to_be_heard(call), len(rtp_sequences(call))
        assert call.dies() == 1
        assert written - before >= 19 * 960
        made_up = len(rtp_sequences(call)) - sent  # on a machine that has been busy with something else
        assert 0 <= before - to_be_heard(call) <= 960 * (1 + made_up)


async def test_no_state_is_older_than_so_many_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_EVERY_S", 3600.0)
    monkeypatch.setattr(under_test, "_PACKETS", 40)
    async with a_kept_call(parrot.Agent) as call:
        sent_at: list[int] = []
        write = call.keeper.write

        def counted(kept: Kept) -> None:
            sent_at.append(sum(rtp.is_rtp_or_rtcp(datagram) for datagram in call.sent))
            write(kept)

        monkeypatch.setattr(call.keeper, "write", counted)
        await until(lambda: len(sent_at) >= 3)
        assert max(after - before for before, after in pairwise(sent_at)) <= 41


async def test_the_next_process_counts_on_from_the_last_packet_however_old_the_state_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(under_test, "_MOST_TRIES", 100)
    monkeypatch.setattr(under_test, "_EVERY_S", 3600.0)
    async with a_kept_call(echo.Agent) as call:
        profile_of(call)
        for frames in (3, 30, 1):
            await says(call, frames)
            last = rtp_sequences(call)[-1]
            assert call.dies() == 1
            await says(call, 1)
            first = next(number for number in rtp_sequences(call) if number > last)
            assert 1 < first - last <= 4, "it was not counted, or more than that"
        call.numbers()


async def test_a_call_in_which_nothing_happens_is_written_seldom_and_at_once_when_something_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(under_test, "_EVERY_S", 0.05)
    monkeypatch.setattr(under_test, "_AT_LEAST_EVERY_S", 3600.0)
    async with a_kept_call(parrot.Agent) as call:
        before = Counter(KEPT)
        await hears(call, 25)  # half a second
        assert gained(before, KEPT).get("written", 0) <= 2, "what happened when it began"
        call.session.stream.voice.say(bytes(48000))
        await until(lambda: gained(before, KEPT).get("written", 0) >= 8)  # while the agent speaks
        await until(lambda: call.session.calm is not None)
        await hears(call, 10)
        before = Counter(KEPT)
        await hears(call, 25)
        assert not gained(before, KEPT), "what it was like when it fell silent is written"


async def test_counts_that_cannot_be_are_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Counter(REVIVED)
    async with a_kept_call(parrot.Agent) as call:
        await hears(call, 1)
        slot = cast("Kept", call.session.transport.kept).slot
        for counter, wrong in ((0, 1 << 20), (1, (1 << 32) - 1)):
            memory = bytes(call.memory)
            call.die()
            call.begin_keeper()
            call.vault.counters(slot)[counter][0] = wrong
            assert call.keeper.revive() == 0
            call.running.cancel()
            call.memory = bytearray(memory)
            call.begin_keeper()
            assert call.keeper.revive() == 1
    assert gained(before, REVIVED) == {"taken_up": 2, "unusable": 2}


async def test_what_channels_send_waits_for_the_state_that_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_MOST_TRIES", 100)
    async with a_kept_call(parrot.Agent) as call:
        channel = await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        profile_of(call)
        # What was asked and not answered is answered by the next one; what was answered is known to it.
        for n in range(5):
            channel.send(json.dumps({"type": "conversation.item.create", "event_id": f"e{n}", "item": ITEM}))
            await asyncio.sleep(0.004 * n)
            assert call.dies() == 1
            await until(lambda n=n: len(of_type(call, "conversation.item.done")) == n + 1)  # type: ignore[misc]
        added = [event["item"]["id"] for event in of_type(call, "conversation.item.done")]
        assert len(set(added)) == 5
        for item in added:
            channel.send(json.dumps({"type": "conversation.item.retrieve", "item_id": item}))
        await until(lambda: len(of_type(call, "conversation.item.retrieved")) == 5)
        assert not of_type(call, "error")
        call.numbers()


async def test_what_waited_while_a_call_was_away_is_sent_as_soon_as_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_EVERY_S", 3600.0)  # nothing is written but what is due
    async with a_kept_call(parrot.Agent) as call:
        await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        session, kept = call.session, cast("Kept", call.session.transport.kept)
        await session.hold()
        session.leave()
        sent: list[bytes] = []
        monkeypatch.setattr(session.transport, "send", sent.append)
        before = kept.written_at
        kept.after(partial(call.session.transport.send, b"first"))
        await until(lambda: kept.written_at > before)
        assert not sent, "its state has left"
        session.stay()
        call.keeper.begin(session)
        assert b"first" in sent
        kept.after(partial(call.session.transport.send, b"second"))
        await until(lambda: b"second" in sent)
        assert sent.index(b"first") < sent.index(b"second")
        monkeypatch.undo()


ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}


async def test_a_call_that_ends_or_is_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_kept_call(parrot.Agent) as call:
        channel = await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        before = Counter(KEPT)
        monkeypatch.setattr(Session, "weight", (1 << 20) + 1)
        await until(lambda: gained(before, KEPT).get("too_large"))
        channel.send(json.dumps({"type": "session.update", "session": {"type": "realtime"}}))
        await until(lambda: of_type(call, "session.updated"))  # the call itself goes on
        monkeypatch.undo()
        await until(lambda: gained(before, KEPT).get("written"))
        assert len(call.keeper) == 1
        call.session.end("hangup")
        assert len(call.keeper) == 0
        assert not any(call.memory[: _COPY * 4 : _COPY])


async def test_a_call_of_which_processes_die_is_left_out() -> None:
    before = Counter(REVIVED)
    async with a_kept_call(parrot.Agent) as call:
        await hears(call, 1)
        assert call.dies() == 1
        assert call.dies() == 1
        assert call.dies() == 0
        assert call.dies() == 0  # and it is forgotten
    assert gained(before, REVIVED) == {"taken_up": 2, "died_again": 1}


async def test_garbage_is_passed_over() -> None:
    before = Counter(REVIVED)
    async with a_kept_call(parrot.Agent) as call:
        await hears(call, 1)
        call.vault.put(1, random.Random(1).randbytes(1000))
        assert call.dies() == 1
        call.memory[:] = random.Random(2).randbytes(len(call.memory))
        assert call.dies() == 0
    assert gained(before, REVIVED) == {"taken_up": 1, "unusable": 1}


async def test_large_parts_are_written_once_and_are_there_after_a_death() -> None:
    url, speech = "data:image/png;base64," + "ab" * (3 << 19), random.Random(7).randbytes(50 * 48000)
    async with a_kept_call(parrot.Agent) as call:
        await call.open_channel()
        await until(lambda: of_type(call, "session.created"))
        profile_of(call)
        written, put_part = Counter[str](), call.vault.put_part

        def counted(slot: int, at: int, data: bytes | memoryview) -> None:
            written["bytes"] += len(data)
            written["largest"] = max(written["largest"], len(data))
            put_part(slot, at, data)

        call.vault.put_part = counted  # type: ignore[method-assign]
        before = Counter(KEPT)
        item = {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": url}]}
        call.session.talk.client_event(json.dumps({"type": "conversation.item.create", "item": item}))
        call.session.stream.voice.say(speech)
        await until(lambda: of_type(call, "conversation.item.done"))
        await until(lambda: written["bytes"] > len(url) + 40 * 48000)
        so_far = Counter(KEPT)["written"]
        await until(lambda: Counter(KEPT)["written"] >= so_far + 3)
        assert not gained(before, KEPT).get("too_large")
        assert written["bytes"] < len(url) + 51 * 48000
        assert written["largest"] <= 256 << 10
        assert call.dies() == 1
        parts = call.session.snapshot().parts
        assert url.encode() in parts
        assert len(url) + 30 * 48000 < sum(map(len, parts)) < len(url) + 50 * 48000
        assert all(part in speech for part in parts if part != url.encode())
        (id_,) = (event["item"]["id"] for event in of_type(call, "conversation.item.done"))
        call.session.talk.client_event(json.dumps({"type": "conversation.item.retrieve", "item_id": id_}))
        await until(lambda: of_type(call, "conversation.item.retrieved"))
        call.numbers()
