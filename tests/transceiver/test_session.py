"""A real session and a caller, both in memory: how its path is found, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from session_run import (
    DEADLINE_S,
    ELSEWHERE,
    HOME,
    OpusRecorder,
    Raises,
    Recorder,
    a_call,
    a_talk,
    ends_with,
    gained,
    until,
)

from caller.offer import Offer
from rtc.codecs.opus import SILENCE
from rtc.dtls.secure import Certificate, SecureTransport
from rtc.ice.lite import CONSENT_S, NEVER_CAME_S, Path
from rtc.pacer import Pacer
from rtc.rtp import packet as rtp
from rtc.sdp import answer as sdp
from transceiver.agents import echo
from transceiver.backlog import Backlog
from transceiver.counters import ENDS, RX_DATAGRAMS, TX_DATAGRAMS
from transceiver.session import Session
from transceiver.transport import Transport
from wire import stun, ufrag

# --- ICE ---


async def test_a_check_without_our_password_gets_no_answer_and_changes_nothing() -> None:
    async with a_call(connected=False) as call:
        assert call.check(password="x" * 24) is None
        bare = stun.parse(bytes.fromhex("000100002112a442") + bytes(12))
        assert bare is not None
        assert call.session.transport.check(bare, HOME) is None
        assert call.session.transport.ice.paths == ()
        assert call.log == []


async def test_media_goes_where_the_caller_nominates() -> None:
    async with a_call() as call:
        await until(lambda: call.rtp)
        assert call.check(ELSEWHERE, nominate=False) is not None
        call.log.clear()
        await until(lambda: call.log)
        assert {path for _, path in call.log} == {HOME}
        assert call.check(ELSEWHERE) is not None
        call.log.clear()
        await until(lambda: call.log)
        assert {path for _, path in call.log} == {HOME}  # nothing says yet that the caller is there
        call.answer_probe(ELSEWHERE)
        call.log.clear()
        await until(lambda: call.log)
        assert {path for _, path in call.log} == {ELSEWHERE}


async def test_what_has_no_path_is_not_sent() -> None:
    async with a_call(connected=False) as call:
        before = Counter(TX_DATAGRAMS)
        call.session.transport.connect()
        await until(lambda: gained(before, TX_DATAGRAMS))
        assert set(gained(before, TX_DATAGRAMS)) == {"no_path"}
        assert call.log == []


class RaisesInClose(Recorder):
    def close(self) -> None:
        raise RuntimeError("an agent's own trouble")


# --- the end ---


async def test_an_agent_that_raises_ends_its_own_session() -> None:
    async with a_call(Raises) as call, a_call(OpusRecorder) as other:
        await call.open_channel()
        before = Counter(ENDS)
        call.speak(b"anything")
        await ends_with(call, "agent_failed")
        assert gained(before, ENDS) == {"agent_failed": 1}
        other.speak(b"unmoved")
        assert OpusRecorder.last.happened == [b"unmoved"]


async def test_an_agent_that_raises_in_close_ends_all_the_same() -> None:
    async with a_call(RaisesInClose) as call:
        call.session.end("hangup")
        await ends_with(call, "hangup")


async def test_a_session_ends_once_and_for_the_first_reason() -> None:
    async with a_call() as call:
        before = Counter(ENDS)
        call.session.end("hangup")
        call.session.end("agent_failed")
        await ends_with(call, "hangup")
        assert gained(before, ENDS) == {"hangup": 1}
        assert Recorder.last.happened.count("close") == 1


async def test_the_caller_is_told_before_its_path_goes_down() -> None:
    async with a_call() as call:
        gone = asyncio.Event()
        call.secure.on_close(gone.set)
        call.session.end("hangup")
        async with asyncio.timeout(DEADLINE_S):
            await gone.wait()
        await ends_with(call, "hangup")
        assert call.log[-2:] == [("send", HOME), ("down", HOME)]


async def test_an_ended_session_answers_and_sends_no_more() -> None:
    async with a_call() as call:
        call.session.end("hangup")
        await ends_with(call, "hangup")
        sent = sum(1 for what, _ in call.log if what == "send")
        assert call.check() is None
        call.speak(SILENCE)
        call.session.transport.dtls(b"\x16" + bytes(20))
        call.session.sweep(time.monotonic() + 1000)
        await asyncio.sleep(0)
        assert sum(1 for what, _ in call.log if what == "send") == sent


async def test_a_caller_that_hangs_up_ends_the_session() -> None:
    async with a_call() as call:
        await call.secure.close()
        await ends_with(call, "closed_by_peer")


async def test_consent_that_runs_out_ends_the_session() -> None:
    async with a_call() as call:
        call.session.sweep(time.monotonic() + CONSENT_S - 5)
        assert not call.session.ended
        call.session.sweep(time.monotonic() + CONSENT_S + 1)
        await ends_with(call, "consent_expired")
        assert ("down", HOME) in call.log


async def test_a_caller_that_never_came_is_given_up() -> None:
    async with a_call(connected=False) as call:
        call.session.sweep(time.monotonic() + NEVER_CAME_S - 5)
        assert not call.session.ended
        call.session.sweep(time.monotonic() + NEVER_CAME_S + 1)
        await ends_with(call, "never_came")


async def test_a_caller_with_another_certificate_is_refused() -> None:
    async with a_call(connected=False) as call:
        other = SecureTransport(call.to_session, Certificate.generateCertificate(), client=False)
        call.secure = other
        assert call.check() is not None
        shaking = asyncio.ensure_future(other.handshake(call.answer.fingerprints))
        await ends_with(call, "dtls_failed")
        await other.close()
        await asyncio.gather(shaking, return_exceptions=True)


async def test_a_hangup_amid_the_handshake_is_a_hangup() -> None:
    async with a_call(connected=False) as call:
        assert call.check() is not None
        await asyncio.sleep(0)
        call.session.end("hangup")
        await ends_with(call, "hangup")


async def test_the_handshake_begins_once_however_many_checks_come() -> None:
    async with a_call(connected=False) as call:
        for _ in range(5):
            assert call.check() is not None
        await call.connect()
        assert not call.session.ended


@pytest.mark.parametrize("size", [1400, 1500, 1501, 2048])
async def test_oversized_media_is_dropped_and_counted(size: int) -> None:
    async with a_call(OpusRecorder) as call:
        before = Counter(RX_DATAGRAMS)
        call.session.transport.media(b"\x80\x6f" + bytes(size - 2), time.monotonic())
        call.session.transport.media(b"\x80\xc8" + bytes(size - 2), time.monotonic())
        assert gained(before, RX_DATAGRAMS) == {"srtp_not_authentic": 2}
        assert not call.session.ended


async def test_echo_of_a_packet_too_long_to_send_is_no_end() -> None:
    async with a_call(echo.Agent) as call:
        before = Counter(TX_DATAGRAMS)
        packet = rtp.build(call.answer.payload_type, False, 1, 960, call.offer.ssrc, b"\xf8" + bytes(1320))
        call.session.transport.media(call.secure.protect(packet), time.monotonic())
        assert gained(before, TX_DATAGRAMS) == {"too_long": 1}
        assert not call.session.ended


async def test_a_hang_up_at_the_end_of_the_handshake_leaves_no_stream_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    pacer = Pacer()
    added: list[object] = []
    monkeypatch.setattr(pacer, "add", added.append)
    ended: list[Session] = []

    class Nowhere:
        def send(self, transport: Transport, path: Path, datagram: bytes) -> None:
            pass

        def path_down(self, transport: Transport, path: Path) -> None:
            pass

        def speaks(self, transport: Transport) -> None:
            pass

        def connected(self, transport: Transport) -> None:
            pass

    sealed = ufrag.seal(1, 1, bytes(16))
    session = Session(
        sdp.parse(Offer(":".join(["AB"] * 32)).sdp()),
        sealed,
        a_talk(echo.Agent, sealed),
        outbound=Nowhere(),
        pacer=pacer,
        backlog=Backlog(),
        certificate=Certificate.generateCertificate(),
        on_end=ended.append,
    )

    async def handshake(fingerprints: object) -> None:
        session.end("hangup")

    monkeypatch.setattr(session.transport._secure, "handshake", handshake)
    session.transport.connect()
    await until(lambda: session.ended)
    await session.closed()
    assert ended == [session]
    assert added == []
