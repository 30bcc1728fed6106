"""The media of a session in memory: echoed, heard, lost and asked for, in every direction and codec."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import ClassVar, Literal

import pytest
from aiortc.rtp import RtcpPsfbPacket, RtcpRtpfbPacket, RtcpSrPacket
from openai.types.realtime import InputAudioBufferDtmfEventReceivedEvent
from session_run import (
    DEADLINE_S,
    Call,
    OpusRecorder,
    Recorder,
    a_call,
    gained,
    of_type,
    until,
    voice,
)

from rtc.codecs.opus import SILENCE, Decoder, Encoder
from rtc.rtp import packet as rtp
from rtc.sdp import answer as sdp
from transceiver.agents import Base, echo, parrot
from transceiver.counters import RX_DATAGRAMS, TX_FRAMES

# --- media ---


async def test_echo_returns_every_packet_as_it_was() -> None:
    async with a_call(echo.Agent) as call:
        spoken = voice(20)
        for payload in spoken:
            call.speak(payload)
        await until(lambda: len(call.rtp) >= len(spoken))
        assert [packet.payload for packet in call.rtp] == spoken
        assert {packet.payload_type for packet in call.rtp} == {call.answer.payload_type}
        first = call.rtp[0]
        assert [(p.sequence - first.sequence) & 0xFFFF for p in call.rtp] == list(range(20))
        assert [(p.timestamp - first.timestamp) & 0xFFFFFFFF for p in call.rtp] == [960 * i for i in range(20)]


async def test_an_agent_that_says_nothing_sends_silence_on_time() -> None:
    async with a_call() as call:
        await until(lambda: len(call.rtp) >= 5)
        assert {packet.payload for packet in call.rtp} == {SILENCE}
        assert call.rtp[1].timestamp - call.rtp[0].timestamp in (960, 960 - (1 << 32))


async def test_reports_come_once_a_second_of_media() -> None:
    async with a_call() as call:
        await until(lambda: call.reports >= 1)
        assert len(call.rtp) >= 49


async def test_what_the_agent_says_is_heard() -> None:
    async with a_call() as call:
        Recorder.last.line.say(b"\x10\x27\xf0\xd8" * 240 * 5)
        await until(lambda: any(packet.payload != SILENCE for packet in call.rtp))
        spoken = next(packet for packet in call.rtp if packet.payload != SILENCE)
        assert spoken.marker
        assert len(Decoder(24000).decode(spoken.payload)) == 960


async def test_the_agent_hears_20_ms_at_a_time_whatever_the_caller_sends() -> None:
    async with a_call() as call:
        encoder = Encoder(24000)
        for samples in (240, 240, 480, 960, 1440, 60):
            call.speak(encoder.encode(bytes(2 * samples)))
        await until(lambda: len(Recorder.last.happened) >= 10)
        assert set(Recorder.last.happened) == {("heard", 960)}
        assert call.session.stream.playout.stats["malformed"] == 0


async def test_the_wrong_payload_type_is_not_heard() -> None:
    async with a_call() as call:
        before = Counter(RX_DATAGRAMS)
        call.speak(SILENCE, payload_type=0)
        assert gained(before, RX_DATAGRAMS) == {"other_payload": 1}
        assert Recorder.last.happened == []


async def test_malformed_opus_is_concealed() -> None:
    async with a_call() as call:
        call.speak(SILENCE)
        call.speak(b"\xff\xff\xff")
        call.speak(b"")
        call.speak(SILENCE)
        stats = call.session.stream.playout.stats
        await until(lambda: stats["heard"] == 2)
        assert (stats["malformed"], stats["padding"]) == (1, 1)
        assert set(Recorder.last.happened) == {("heard", 960)}
        assert not call.session.ended


def against_loss(offer: str) -> str:
    """The caller's offer with all that Chromium's has against loss, and NACK."""
    audio = offer.replace("SAVPF 111\r\n", "SAVPF 111 63\r\n").replace(
        "a=rtcp-mux\r\n", f"a=rtcp-mux\r\na=rtcp-rsize\r\na=extmap:3 {sdp.TRANSPORT_CC}\r\n"
    )
    more = "a=rtcp-fb:111 nack\r\na=rtcp-fb:111 transport-cc\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n"
    return audio.replace("a=rtpmap:111", more + "a=rtpmap:111")


def g711(offer: str) -> str:
    lines = [line for line in offer.split("\r\n") if not line.startswith("a=fmtp:111")]
    return "\r\n".join(lines).replace("SAVPF 111", "SAVPF 0").replace("rtpmap:111 opus/48000/2", "rtpmap:0 PCMU/8000")


def asked_for(call: Call) -> list[int]:
    return [n for p in call.rtcp if isinstance(p, RtcpRtpfbPacket) and p.fmt == 1 for n in p.lost]


async def test_a_lost_packet_is_asked_for_and_heard_when_it_comes_again() -> None:
    async with a_call(amend=against_loss) as call:
        spoken = voice(6)
        for payload in spoken[:2]:
            call.speak(payload)
        kept = call.sequence
        call.sequence += 1
        call.speak(spoken[3])
        await until(lambda: asked_for(call))
        assert set(asked_for(call)) == {kept}
        assert any(isinstance(p, RtcpRtpfbPacket) and p.media_ssrc == call.offer.ssrc for p in call.rtcp)
        call.speak(spoken[4])
        later, call.sequence = call.sequence, kept
        # The clock of this test cannot promise that it is in time; it is either.
        call.speak(spoken[2])
        call.sequence = later
        stats = call.session.stream.playout.stats
        await until(lambda: stats["heard"] == 4)
        assert stats["nack"] + stats["concealed"] + stats["fec"] >= 1


async def test_without_nack_in_the_offer_nothing_is_asked_for() -> None:
    async with a_call() as call:
        for payload in voice(3):
            call.speak(payload)
            call.sequence += 1
        await until(lambda: call.reports)
        assert asked_for(call) == []


async def test_what_the_caller_asks_for_is_sent_again_as_it_was() -> None:
    async with a_call() as call:
        await until(lambda: len(call.rtp) >= 5)
        wanted = call.rtp[2]
        nack_packet = RtcpRtpfbPacket(fmt=1, ssrc=1, media_ssrc=wanted.ssrc, lost=[wanted.sequence])
        before = list(call.datagrams)
        for _ in range(10):
            call.session.transport.media(call.secure.protect_rtcp(bytes(nack_packet)), time.monotonic())
        await until(lambda: call.datagrams.count(before[2]) >= 1 + 3)
        assert call.datagrams.count(before[2]) == 1 + 3


@pytest.mark.parametrize("fmt", [1, 4, 15])
async def test_other_feedback_is_passed_over(fmt: int) -> None:
    async with a_call() as call:
        call.session.transport.media(
            call.secure.protect_rtcp(bytes(RtcpPsfbPacket(fmt=fmt, ssrc=1, media_ssrc=2, fci=bytes(8)))),
            time.monotonic(),
        )
        await until(lambda: len(call.rtp) > 2)
        assert not call.session.ended


async def test_when_packets_came_is_told_to_who_numbers_them() -> None:
    async with a_call(amend=against_loss) as call:
        for number, payload in enumerate(voice(3)):
            head = bytearray(rtp.build(111, False, number, 960 * number, call.offer.ssrc, b""))
            head[0] |= 0x10
            extension = bytes.fromhex("bede000131") + number.to_bytes(2, "big") + b"\0"
            call.session.transport.media(call.secure.protect(bytes(head) + extension + payload), time.monotonic())
        await until(lambda: any(isinstance(p, RtcpRtpfbPacket) and p.fmt == 15 for p in call.rtcp))


async def test_red_is_heard_and_fills_gaps() -> None:
    async with a_call(amend=against_loss) as call:
        spoken = voice(3)
        call.speak(spoken[0])
        call.sequence += 1
        head = bytes([0x80 | 111]) + (960 << 10 | len(spoken[1])).to_bytes(3, "big") + bytes([111])
        call.speak(head + spoken[1] + spoken[2], payload_type=63)
        stats = call.session.stream.playout.stats
        await until(lambda: stats["heard"] == 2)
        assert stats["red"] == 1
        assert asked_for(call) == []


def offers(direction: str) -> Callable[[str], str]:
    return lambda offer: offer.replace("a=sendrecv\r\n", f"a={direction}\r\n")


# --- directions ---


@pytest.mark.parametrize("direction", ["sendonly", "inactive"])
async def test_who_takes_no_media_is_sent_reports_and_no_rtp(direction: str) -> None:
    async with a_call(amend=offers(direction)) as call:
        before = Counter(TX_FRAMES)
        Recorder.last.line.say(b"\x10\x27\xf0\xd8" * 240 * 5)
        await until(lambda: call.reports)
        assert call.rtp == []
        assert not any(isinstance(p, RtcpSrPacket) for p in call.rtcp)  # it would say that something was sent
        assert gained(before, TX_FRAMES) == {}
        assert call.session.stream.voice.idle  # said, in its time
        assert not call.session.ended


async def test_who_takes_no_media_is_echoed_nothing() -> None:
    async with a_call(echo.Agent, amend=offers("sendonly")) as call:
        for payload in voice(5):
            call.speak(payload)
        await until(lambda: call.reports)
        assert call.rtp == []
        assert not call.session.ended


async def test_who_sends_only_is_heard() -> None:
    async with a_call(amend=offers("sendonly")) as call:
        for payload in voice(5):
            call.speak(payload)
        await until(lambda: ("heard", 960) in Recorder.last.happened)


@pytest.mark.parametrize("direction", ["recvonly", "inactive"])
async def test_who_said_that_nothing_comes_is_not_heard(direction: str) -> None:
    async with a_call(amend=offers(direction)) as call:
        before = Counter(RX_DATAGRAMS)
        for payload in voice(5):
            call.speak(payload)
        assert gained(before, RX_DATAGRAMS) == {"not_received": 5}
        await until(lambda: call.reports)
        assert Recorder.last.happened == []
        assert bool(call.rtp) is (direction == "recvonly")
        assert not call.session.ended


@pytest.mark.parametrize("direction", ["sendonly", "recvonly", "inactive"])
async def test_events_pass_in_every_direction_of_media(direction: str) -> None:
    async with a_call(parrot.Agent, amend=offers(direction)) as call:
        await call.open_channel()
        await until(lambda: [event["type"] for event in call.events] == ["session.created"])


class Narrow(Recorder):
    rate_hz: ClassVar[Literal[8000, 16000, 24000, 48000]] = 16000


# --- other codecs ---


async def test_a_caller_with_g711_alone_is_heard_and_hears() -> None:
    async with a_call(Narrow, amend=g711) as call:
        for _ in range(5):
            call.session.transport.media(
                call.secure.protect(
                    rtp.build(0, False, call.sequence, 160 * call.sequence, call.offer.ssrc, bytes(160))
                ),
                time.monotonic(),
            )
            call.sequence += 1
        await until(lambda: ("heard", 640) in Recorder.last.happened)
        Recorder.last.line.say(b"\x10\x27\xf0\xd8" * 160 * 5)
        await until(lambda: len(call.rtp) > 1 and any(set(packet.payload) != {0xFF} for packet in call.rtp))
        assert {(packet.payload_type, len(packet.payload)) for packet in call.rtp} == {(0, 160)}
        assert (call.rtp[1].timestamp - call.rtp[0].timestamp) & 0xFFFFFFFF == 160


async def test_two_ssrcs_at_once_are_one_call() -> None:
    async with a_call() as call:
        before = Counter(RX_DATAGRAMS)
        for payload in voice(4):
            call.speak(payload)
            packet = rtp.build(111, False, 7 * call.sequence, 1, call.offer.ssrc ^ 1, payload)
            call.session.transport.media(call.secure.protect(packet), time.monotonic())
        assert gained(before, RX_DATAGRAMS) == {"audio": 4, "other_source": 4}
        assert call.session.transport.ssrcs == (call.offer.ssrc,)


async def test_media_before_the_handshake_is_too_early() -> None:
    async with a_call(connected=False) as call:
        before = Counter(RX_DATAGRAMS)
        call.session.transport.media(rtp.build(111, False, 1, 1, 1, b"too early") + bytes(10), time.monotonic())
        assert gained(before, RX_DATAGRAMS) == {"too_early": 1}


async def test_forged_media_is_dropped_and_counted_and_never_an_end() -> None:
    async with a_call(OpusRecorder) as call:
        rng = random.Random(9)
        before = Counter(RX_DATAGRAMS)
        for _ in range(500):
            call.session.transport.media(
                bytes([rng.randrange(128, 192)]) + rng.randbytes(rng.randrange(7, 1400)), time.monotonic()
            )
        assert gained(before, RX_DATAGRAMS) == {"srtp_not_authentic": 500}
        assert OpusRecorder.last.happened == []
        call.speak(b"still here")
        assert OpusRecorder.last.happened == [b"still here"]


def with_keys(offer: str) -> str:
    return offer.replace("SAVPF 111\r\n", "SAVPF 111 110\r\n").replace(
        "a=rtpmap:111", "a=rtpmap:110 telephone-event/48000\r\na=rtpmap:111"
    )


@pytest.mark.parametrize("agent", [Recorder, OpusRecorder])
async def test_a_pressed_key_is_an_event_for_the_client_and_known_to_the_agent(agent: type[Base]) -> None:
    async with a_call(agent, amend=with_keys) as call:
        await call.open_channel()
        for code in (5, 5, 5, 5, 11, 11, 11, 11):
            call.speak(bytes([code, 0x8A]) + (960).to_bytes(2, "big"), payload_type=110)
            call.speak(SILENCE)
        await until(lambda: len(of_type(call, "input_audio_buffer.dtmf_event_received")) == 8)
        told = of_type(call, "input_audio_buffer.dtmf_event_received")
        event = InputAudioBufferDtmfEventReceivedEvent.model_validate(told[0])
        assert event.event == "5"
        assert abs(event.received_at - time.time()) < DEADLINE_S
        assert "".join(each["event"] for each in told) == "5555####"
        assert [each for each in Recorder.last.happened if each[:1] == ("dtmf",)] == [
            ("dtmf", e["event"]) for e in told
        ]


async def test_a_key_that_was_not_offered_is_none() -> None:
    async with a_call() as call:
        before = Counter(RX_DATAGRAMS)
        call.speak(bytes.fromhex("058a0fa0"), payload_type=110)
        assert gained(before, RX_DATAGRAMS) == {"other_payload": 1}
