"""The caller: its voice, its ICE, what it measures, and whole calls to a small aiortc peer on loopback."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import aioice.ice
import numpy as np
import pytest
import webrtcvad
from aiohttp import web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import SessionDescription
from click.testing import CliRunner
from rich.console import Console, RenderableType

from caller import figures, report
from caller.call import Call, Line
from caller.cli import call as command
from caller.conversation import Conversation
from caller.dial import Plan, dial
from caller.offer import AnswerError, Offer, parse_answer
from caller.result import Phase, Result
from caller.signaling import Token, calls_url
from caller.voice import Voice, VoiceError, generated, recorded
from rtc.codecs.opus import SILENCE
from rtc.ice.controlling import CONSENT_EVERY_S, CONSENT_LOST_S, Controlling
from rtc.pacer import Pacer
from rtc.rtp.packet import Packet
from rtc.rtp.reception import Reception
from wire import address as flow
from wire import stun


@pytest.fixture(scope="module")
def voice() -> Voice:
    return generated(7.0, seed=3)


# --- the voice ---


def test_generated_voice_is_speech_to_a_detector_and_its_pauses_are_not(voice: Voice) -> None:
    pcm = voice.pcm(8000)
    detector = webrtcvad.Vad(2)
    heard = np.array([detector.is_speech(pcm[i : i + 320], 8000) for i in range(0, len(pcm), 320)])
    speech = np.array(voice.speech)
    # The detector holds on for some frames after speech: a pause is judged from 300 ms into it.
    pause = ~np.convolve(speech, np.ones(16))[: len(speech)].astype(bool)
    assert heard[speech].mean() > 0.95
    assert pause.sum() > 50
    assert heard[pause].mean() < 0.02


def test_generated_voice_takes_turns_of_two_seconds(voice: Voice) -> None:
    assert voice.seconds == 7.0
    ends = sorted(voice.turn_ends)
    assert len(ends) == 2
    assert 85 <= ends[0] <= 100
    assert 260 <= ends[1] <= 275


def test_no_two_frames_of_a_voice_have_the_same_payload(voice: Voice) -> None:
    assert len(set(voice.frames)) == len(voice.frames) == len(voice.frame_of)
    assert all(voice.frames[i] == payload for payload, i in voice.frame_of.items())


def test_the_same_seed_gives_the_same_voice() -> None:
    assert generated(1.0, seed=5).frames == generated(1.0, seed=5).frames != generated(1.0, seed=6).frames


def _write_wave(path: Path, seconds: float) -> None:
    samples = (8000 * np.sin(2 * np.pi * 300 * np.arange(round(16000 * seconds)) / 16000)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.repeat(samples, 2).tobytes())


def test_a_recording_is_resampled_and_ends_with_a_pause(tmp_path: Path) -> None:
    _write_wave(tmp_path / "tone.wav", 1.0)
    voice = recorded(tmp_path / "tone.wav")
    assert 2.48 <= voice.seconds <= 2.54
    assert len(voice.turn_ends) == 1
    assert len(set(voice.frames)) == len(voice.frames)
    loudness = np.abs(np.frombuffer(voice.pcm(48000), "<i2").astype(float))
    assert loudness[9600:38400].mean() > 4000
    assert loudness[-48000:].mean() < 20


def test_what_is_no_recording_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(VoiceError, match=r"text\.wav: not a readable audio file"):
        recorded(tmp_path / "text.wav")
    _write_wave(tmp_path / "short.wav", 0.005)
    with pytest.raises(VoiceError, match="less than 20 ms"):
        recorded(tmp_path / "short.wav")


# --- offer and answer ---


def _answer_sdp(**changes: str) -> str:
    lines = {
        "head": "v=0\no=- 1 2 IN IP4 127.0.0.1\ns=-\nt=0 0\na=group:BUNDLE 0 1\na=ice-lite",
        "audio": "m=audio 9 UDP/TLS/RTP/SAVPF 96\nc=IN IP4 0.0.0.0\na=mid:0\na=sendrecv\na=rtcp-mux",
        "codec": "a=rtpmap:96 opus/48000/2",
        "ice": "a=ice-ufrag:servufrag\na=ice-pwd:0123456789012345678901",
        "dtls": "a=fingerprint:sha-256 AB:CD",
        "setup": "a=setup:active",
        "candidates": (
            "a=candidate:1 1 udp 2130706175 2001:db8::1 3478 typ host\n"
            "a=candidate:2 1 udp 2130706431 203.0.113.10 3478 typ host\n"
            "a=candidate:3 1 tcp 2130706999 203.0.113.11 9 typ host tcptype passive"
        ),
        "channel": "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP4 0.0.0.0\na=mid:1\na=sctp-port:5001",
        "size": "a=max-message-size:262144",
    } | changes
    return "".join(part.replace("\n", "\r\n") + "\r\n" for part in lines.values() if part)


def test_offer_is_what_a_browser_would_send() -> None:
    offer = Offer("AB:CD")
    text = offer.sdp()
    assert all(line.endswith("\r") for line in text.split("\n")[:-1])
    audio, channel = SessionDescription.parse(text).media
    assert (audio.kind, audio.direction, audio.rtcp_mux, audio.rtp.muxId) == ("audio", "sendrecv", True, "0")
    codec = audio.rtp.codecs[0]
    assert (codec.mimeType, codec.clockRate, codec.channels, codec.payloadType) == ("audio/opus", 48000, 2, 111)
    assert codec.parameters["useinbandfec"] == 1
    assert [s.ssrc for s in audio.ssrc] == [offer.ssrc]
    assert audio.ssrc[0].cname
    assert audio.ice.usernameFragment == offer.ufrag
    assert len(audio.ice.password) * 6 >= 128
    assert audio.dtls.role == "auto"
    assert audio.ice_candidates == []
    assert (channel.sctp_port, channel.sctpCapabilities.maxMessageSize) == (5000, 262144)
    assert "a=group:BUNDLE 0 1" in text


def test_answer_is_read() -> None:
    answer = parse_answer(_answer_sdp())
    assert (answer.ufrag, answer.password) == ("servufrag", "0123456789012345678901")
    assert answer.address == ("203.0.113.10", 3478)
    assert answer.fingerprints == (("sha-256", "AB:CD"),)
    assert answer.server_is_dtls_client
    assert (answer.payload_type, answer.sctp_port, answer.max_message_bytes) == (96, 5001, 262144)
    assert not parse_answer(_answer_sdp(setup="a=setup:passive")).server_is_dtls_client
    assert parse_answer(_answer_sdp(), ipv6=True).address == ("2001:db8::1", 3478)
    assert parse_answer(_answer_sdp(channel="", size="")).sctp_port is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"audio": "m=video 9 UDP/TLS/RTP/SAVPF 96"}, "no audio"),
        ({"codec": "a=rtpmap:96 PCMU/8000"}, "no Opus"),
        ({"ice": "a=ice-ufrag:servufrag"}, "no ice-pwd"),
        ({"dtls": ""}, "no fingerprint"),
        ({"setup": ""}, "no setup"),
        ({"setup": "a=setup:actpass"}, "setup:active or setup:passive"),
        ({"candidates": "a=candidate:1 1 tcp 1 203.0.113.11 9 typ host"}, "no IPv4 UDP candidate"),
        ({"head": "nonsense", "audio": "m=audio nonsense"}, "is not SDP"),
    ],
)
def test_answer_that_no_call_can_be_made_from_is_named(changes: dict[str, str], sentence: str) -> None:
    with pytest.raises(AnswerError, match=sentence):
        parse_answer(_answer_sdp(**changes), ipv6=False)


def test_calls_url_is_completed_but_never_overruled() -> None:
    assert calls_url("http://h:1", "echo") == "http://h:1/v1/realtime/calls?model=echo"
    assert calls_url("https://h/", "a b") == "https://h/v1/realtime/calls?model=a+b"
    assert calls_url("http://h/whip?model=x&y=1", "echo") == "http://h/whip?model=x&y=1"
    for bad in ("h:1", "ftp://h", "http://"):
        with pytest.raises(ValueError, match="not an http or https URL"):
            calls_url(bad, "echo")


# --- ICE ---

SERVER = flow.pack("203.0.113.10", 3478)
CALLER = flow.pack("198.51.100.7", 40000)


def _ice() -> Controlling:
    return Controlling("mine", "my-password-of-24-chars!", "theirs", "their-password-24-chars!")


def _sent(check: bytes | None) -> stun.Message:
    assert check is not None
    message = stun.parse(check)
    assert message is not None
    return message


def test_first_check_nominates_and_is_authentic() -> None:
    message = _sent(_ice().poll(10.0)[0])
    assert message.kind == stun.BINDING_REQUEST
    assert stun.server_ufrag(message) == b"theirs"
    assert message.attributes[stun.USERNAME] == b"theirs:mine"
    assert stun.USE_CANDIDATE in message.attributes
    assert stun.ICE_CONTROLLING in message.attributes
    assert stun.integrity_is_valid(message, b"their-password-24-chars!")


def test_checks_are_repeated_with_doubling_waits_until_one_is_answered() -> None:
    ice, now, at = _ice(), 10.0, []
    for _ in range(8):
        check, now_due = ice.poll(now)
        assert check is not None
        at.append(now - 10.0)
        assert ice.poll(now + 0.001)[0] is None
        now = now_due
    assert at == pytest.approx([0, 0.05, 0.15, 0.35, 0.75, 1.55, 3.15, 4.75])
    assert ice.sent == 8


def test_only_the_right_transaction_with_the_right_key_connects() -> None:
    ice = _ice()
    first, _ = ice.poll(1.0)
    ice.poll(1.05)
    request = _sent(first)
    wrong_key = stun.binding_response(request, CALLER, b"another password")
    stranger = replace(request, transaction=bytes(12))
    other = stun.binding_response(stranger, CALLER, b"their-password-24-chars!")
    for datagram in (wrong_key, other, b"", b"\x01\x01garbage", first or b""):
        assert ice.receive(datagram, SERVER, 1.1) is None
        assert ice.connected_at is None
    assert ice.receive(stun.binding_response(request, CALLER, b"their-password-24-chars!"), SERVER, 1.12) is None
    assert ice.connected_at == 1.12
    assert ice.round_trip_ms == pytest.approx(120)


def test_consent_is_checked_every_two_and_a_half_seconds_and_lost_after_thirty() -> None:
    ice = _ice()
    request = _sent(ice.poll(0.0)[0])
    ice.receive(stun.binding_response(request, CALLER, b"their-password-24-chars!"), SERVER, 0.02)
    assert ice.poll(1.0) == (None, pytest.approx(0.02 + CONSENT_EVERY_S))
    check, due = ice.poll(2.6)
    assert due == pytest.approx(2.6 + CONSENT_EVERY_S)
    ice.receive(stun.binding_response(_sent(check), CALLER, b"their-password-24-chars!"), SERVER, 2.65)
    assert ice.round_trip_ms == pytest.approx(50)
    assert not ice.consent_lost(2.65 + CONSENT_LOST_S)
    assert ice.consent_lost(2.7 + CONSENT_LOST_S)


def test_checks_of_the_server_are_answered_only_if_authentic_and_for_us() -> None:
    ice = _ice()
    good = stun.binding_request(b"mine:theirs", b"my-password-of-24-chars!")
    reply = ice.receive(good, SERVER, 0.0)
    message = _sent(reply)
    assert message.kind == stun.BINDING_RESPONSE
    assert message.transaction == _sent(good).transaction
    assert stun.integrity_is_valid(message, b"my-password-of-24-chars!")
    assert ice.receive(stun.binding_request(b"mine:theirs", b"wrong"), SERVER, 0.0) is None
    assert ice.receive(stun.binding_request(b"other:theirs", b"my-password-of-24-chars!"), SERVER, 0.0) is None


# --- what is measured ---


def _packet(number: int, ssrc: int = 1, base: int = 65530, payload: bytes = b"x") -> Packet:
    return Packet(111, False, (base + number) & 0xFFFF, (number * 960) & 0xFFFFFFFF, ssrc, payload)


def _received(numbers: list[int]) -> Reception:
    reception = Reception()
    for i, number in enumerate(numbers):
        reception.add(_packet(number), i * 0.02)
    return reception


def test_sequence_wrap_is_not_a_loss() -> None:
    reception = _received(list(range(20)))
    assert (reception.received, reception.lost, reception.duplicates) == (20, 0, 0)
    assert reception.jitter_ms < 0.05


def test_losses_are_counted_across_the_wrap() -> None:
    reception = _received([n for n in range(20) if n not in (3, 5, 6, 7)])
    assert (reception.received, reception.lost) == (16, 4)


def test_reordered_packets_are_neither_lost_nor_duplicates() -> None:
    reception = _received([1, 0, 2, 5, 4, 3, 6, 8, 7])
    assert (reception.received, reception.lost, reception.duplicates, reception.reordered) == (9, 0, 0, 4)


def test_duplicates_do_not_hide_a_loss() -> None:
    reception = _received([0, 1, 1, 3, 3, 1, 4])
    assert (reception.received, reception.lost, reception.duplicates) == (4, 1, 3)


def test_many_turns_of_the_sequence_number_are_followed() -> None:
    reception = _received([n for n in range(200_000) if n % 100])
    assert reception.received == 198_000
    assert reception.lost == 1_999  # the very first cannot be missed


def test_new_stream_keeps_what_was_counted() -> None:
    reception = _received([0, 1, 3])
    for number in (0, 1, 4):
        reception.add(_packet(number, ssrc=2, base=100), 1 + number * 0.02)
    assert (reception.received, reception.lost, reception.duplicates) == (6, 3, 0)


def test_jitter_follows_rfc_3550() -> None:
    reception, expected = Reception(), 0.0
    late = [0, 10, 0, 5, 20, 0]
    for i, ms in enumerate(late):
        reception.add(_packet(i), i * 0.02 + ms / 1000)
    for before, after in pairwise(late):
        expected += (abs(after - before) - expected) / 16
    assert reception.jitter_ms == pytest.approx(expected, abs=0.01)


def test_longest_gap_counts_the_silence_at_the_end() -> None:
    reception = _received([0, 1])
    reception.add(_packet(2), 0.12)
    assert reception.longest_gap_ms == pytest.approx(100)
    reception.finish(0.5)
    assert reception.longest_gap_ms == pytest.approx(380)


def test_echoed_frames_give_round_trips_and_missing_ones_are_lost(voice: Voice) -> None:
    talk = Conversation(voice)
    for i in range(100):
        now = i * 0.02
        talk.sent_frame(i, now)
        # Echoes begin with frame 10, three of them never come home, one comes twice.
        back = i - 2
        if back >= 10 and back not in (20, 21, 50):
            talk.received_payload(voice.frames[back], now + 0.003)
        if back == 30:
            talk.received_payload(voice.frames[back], now + 0.004)
    for back in (98, 99):
        talk.received_payload(voice.frames[back], back * 0.02 + 0.043)
    assert (talk.sent, talk.returned, talk.expected) == (100, 87, 90)
    assert list(talk.round_trip_ms) == pytest.approx([43.0] * 87)
    assert not talk.response_ms


def test_very_late_echo_is_no_response(voice: Voice) -> None:
    talk = Conversation(voice)
    for i in range(min(voice.turn_ends) + 60):
        talk.sent_frame(i, i * 0.02)
    talk.received_payload(voice.frames[i], i * 0.02 + 0.01)
    talk.received_payload(voice.frames[5], i * 0.02 + 0.02)
    assert talk.returned == 1
    assert not talk.response_ms


def test_own_words_said_again_seconds_later_are_a_response_and_no_echo(voice: Voice) -> None:
    talk = Conversation(voice)
    end = min(voice.turn_ends)
    for i in range(end + 60):
        talk.sent_frame(i, i * 0.02)
        talk.received_payload(voice.frames[i - end - 40] if i > end + 40 else SILENCE, i * 0.02)
    assert not talk.round_trip_ms
    assert list(talk.response_ms) == pytest.approx([41 * 20.0])


def test_who_still_speaks_at_the_end_of_our_turn_has_not_answered_it(voice: Voice) -> None:
    talk = Conversation(voice)
    for i in range(min(voice.turn_ends) + 20):
        talk.sent_frame(i, i * 0.02)
        talk.received_payload(b"speech of an agent that never stops", i * 0.02)
    assert not talk.response_ms


def test_an_agent_that_is_spoken_over_is_measured_until_its_last_sound(voice: Voice) -> None:
    talk = Conversation(voice)
    start = min(voice.turn_starts - {0})
    for i in range(start + 40):
        # It answers before we go on, stops a while after that, and breathes once in between.
        sounds = start - 10 < i <= start + 5 and i != start + 2
        talk.sent_frame(i, i * 0.02)
        talk.received_payload(b"speech of an agent" if sounds else SILENCE, i * 0.02 + 0.001)
    assert list(talk.barge_in_ms) == pytest.approx([5 * 20.0 + 1])


def test_an_agent_that_is_silent_is_not_spoken_over(voice: Voice) -> None:
    talk = Conversation(voice)
    for i in range(min(voice.turn_starts - {0}) + 40):
        talk.sent_frame(i, i * 0.02)
        talk.received_payload(SILENCE, i * 0.02)
    assert not talk.barge_in_ms


async def test_pacer_calls_each_on_schedule_and_spread_over_the_frame() -> None:
    pacer, loop = Pacer(), asyncio.get_running_loop()
    times: list[list[float]] = [[] for _ in range(10)]
    enough = asyncio.Event()

    def sender(i: int) -> Any:
        def send() -> None:
            times[i].append(loop.time())
            if all(len(t) >= 25 for t in times):
                enough.set()

        return send

    sends = [sender(i) for i in range(10)]
    for send in sends:
        pacer.add(send)
    await asyncio.wait_for(enough.wait(), 30)
    for send in sends:
        pacer.remove(send)
    # Everyone is called equally often, give or take the slot that has just come: nothing drifts.
    assert {len(t) for t in times} <= {25, 26, 27}
    counts = [len(t) for t in times]
    await asyncio.sleep(0.05)
    assert [len(t) for t in times] == counts


# --- the report ---


def _result(number: int, first_audio_ms: float = 100.0, **changes: Any) -> Result:
    phases = (
        Phase("signaling", 0, 20),
        Phase("ice", 20, 30),
        Phase("dtls", 30, 60),
        Phase("first_audio", 60, first_audio_ms),
    )
    values: dict[str, Any] = {
        "phases": phases,
        "packets_received": 90,
        "packets_lost": 10,
        "frames_sent": 100,
        "jitter_ms": 1.5,
        "round_trip_ms": [40.0] * 99 + [80.0],
    }
    return Result(number, **({"outcome": "ok"} | values | changes))


def _drawn(renderable: RenderableType) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_percentiles_are_nearest_rank() -> None:
    assert figures.spread([]) is None
    assert figures.spread([7.0]) == (1, 7.0, 7.0, 7.0)
    assert figures.spread(float(n) for n in range(1, 201)) == (200, 100.0, 198.0, 200.0)


def test_summary_adds_up() -> None:
    failed = Result(3, "failed", failed_phase="ice", error="no answer", phases=(Phase("signaling", 0, 50),))
    summary = figures.summarise([_result(1), _result(2, 200.0), failed], 1.25)
    assert (summary.calls, summary.ok, summary.failed, summary.interrupted) == (3, 2, 1, 0)
    assert summary.setup["signaling"] == (3, 20.0, 50.0, 50.0)
    assert summary.setup["total"] == (2, 100.0, 200.0, 200.0)
    assert summary.setup["session_created"] is None
    assert summary.round_trip == (200, 40.0, 40.0, 80.0)
    assert summary.loss_percent == pytest.approx(10.0)
    assert figures.summarise([failed]).loss_percent is None


def test_json_says_why_each_call_failed() -> None:
    results = [_result(1), Result(2, "failed", failed_phase="ice", error="no answer")]
    told = {"heard": {"heard": 500, "fec": 2}, "made": {"on_time": 501, "late": 1}, "lost": 2}
    results[0] = replace(results[0], told=told)
    shown = json.loads(json.dumps(figures.as_json("http://h", figures.summarise(results), results)))
    assert shown["server"] == {"heard": told["heard"], "made": told["made"]}
    assert shown["per_call"][0]["server"] == told
    assert shown["calls"] == {"placed": 2, "ok": 1, "failed": 1, "interrupted": 0}
    assert shown["setup_ms"]["dtls"] == {"samples": 1, "p50": 30, "p99": 30, "max": 30}
    assert shown["per_call"][0]["phases_ms"]["dtls"] == [30, 60]
    assert (shown["per_call"][1]["failed_phase"], shown["per_call"][1]["error"]) == ("ice", "no answer")


def test_waterfall_draws_each_phase_where_it_happened() -> None:
    lines = _drawn(report.waterfall([("signaling", 0, 50), ("ice", 50, 100)])).splitlines()
    assert "50.0 ms" in lines[0]
    assert lines[0].index("█") < lines[1].index("█")
    assert lines[0].count("█") == lines[1].count("█") == 24
    assert _drawn(report.waterfall([])).strip() == ""


def test_what_is_printed_tells_figures_and_reasons() -> None:
    results = [_result(1), *(Result(n, "failed", failed_phase="ice", error="no answer") for n in (2, 3))]
    text = _drawn(report.summary_table(figures.summarise(results, 33.0), results))
    assert "1 of 3 calls good, 2 failed" in text
    assert "2 x ICE: no answer" in text
    assert "up to 33 ms late" in text
    assert "0 were lost" in text
    text = _drawn(report.live([_result(1), Result(2, "interrupted")], ["talk", "dtls"], 4.0))
    assert "talking" in text
    assert "25 %" in text


# --- whole calls ---


@dataclass
class Peer:
    """A small server that answers with aiortc; ``mode`` is echo (payloads straight back) or silent."""

    mode: str = "echo"
    token: str = "right"
    url: str = ""
    full: bool = False
    dead: bool = False
    created: bool = True
    hung_up: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    connections: dict[str, RTCPeerConnection] = field(default_factory=dict)

    async def place(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        if self.full:
            return web.json_response({"error": {"message": "no room"}}, status=503, headers={"Retry-After": "7"})
        assert request.content_type == "application/sdp"
        self.models.append(request.query["model"])
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        name = f"rtc_{len(self.connections) + 1}"
        self.connections[name] = connection
        await connection.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        connection.getTransceivers()[0].direction = "sendrecv"
        if self.mode == "echo":
            self._echo(connection)

        @connection.on("datachannel")
        def opened(channel: Any) -> None:
            if self.created and channel.label == "oai-events":
                channel.send(json.dumps({"type": "session.created", "event_id": "1"}))

        await connection.setLocalDescription(await connection.createAnswer())
        answer = connection.localDescription.sdp
        if self.dead:
            await connection.close()
        headers = {"Location": f"/v1/realtime/calls/{name}"}
        return web.Response(status=201, text=answer, content_type="application/sdp", headers=headers)

    def _echo(self, connection: RTCPeerConnection) -> None:
        transport = connection.getTransceivers()[0].receiver.transport

        async def back(data: bytes, arrival_time_ms: int) -> None:
            await transport._send_rtp(data[:8] + b"echo" + data[12:])

        transport._handle_rtp_data = back  # type: ignore[method-assign]

    async def hang_up(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.hung_up.append(name)
        await self.connections[name].close()
        return web.Response()


@asynccontextmanager
async def _peer(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[Peer]:
    # aioice leaves loopback out; here nothing may leave the machine.
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    peer = Peer(**settings)
    app = web.Application()
    app.router.add_post("/v1/realtime/calls", peer.place)
    app.router.add_post("/v1/realtime/calls/{name}/hangup", peer.hang_up)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    peer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield peer
    finally:
        for connection in peer.connections.values():
            await connection.close()
        await runner.cleanup()


def _plan(peer: Peer, voice: Voice, **changes: Any) -> Plan:
    plan = Plan(calls_url(peer.url, "echo"), voice, Token("right", "the test"), talk_s=1.0, timeout_s=30.0)
    return replace(plan, **changes)


async def test_calls_are_set_up_talk_and_hang_up(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch) as peer:
        results, _ = await dial(_plan(peer, voice, calls=3, rate=100.0))
        assert [r.outcome for r in results] == ["ok"] * 3, [r.error for r in results]
        assert peer.models == ["echo"] * 3
        assert sorted(peer.hung_up) == ["rtc_1", "rtc_2", "rtc_3"] == sorted(r.call_id or "" for r in results)
    for result in results:
        assert [p.name for p in result.phases] == ["signaling", "ice", "dtls", "first_audio"]
        ends = [p.end_ms for p in result.phases]
        assert ends == sorted(ends)
        assert result.channel_open_ms is not None
        assert result.session_created_ms is not None
        assert result.frames_returned > 20
        assert len(result.round_trip_ms) == result.frames_returned
        assert result.packets_received >= result.frames_returned
        assert result.packets_rejected == 0


async def test_a_bound_caller_uses_that_address(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch) as peer:
        results, _ = await dial(_plan(peer, voice, bind="127.0.0.1"))
        assert results[0].outcome == "ok", results[0].error


async def test_wrong_token_is_named_by_its_source(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch) as peer:
        results, _ = await dial(_plan(peer, voice, token=Token("wrong", "keys.txt")))
        assert results[0].error == "HTTP 401, the token from keys.txt was refused: no such key"
        results, _ = await dial(_plan(peer, voice, token=None))
        assert "no token was sent: give --token-file or FIRSTHOP_TOKEN" in (results[0].error or "")


async def test_full_server_says_when_to_try_again(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch, full=True) as peer:
        results, _ = await dial(_plan(peer, voice))
    assert results[0].failed_phase == "signaling"
    assert results[0].error == "HTTP 503, the server is full, try again in 7 s: no room"


async def test_keys_that_the_server_does_not_take_are_no_call(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch) as peer:
        results, _ = await dial(_plan(peer, voice, keys="12"))
        assert peer.hung_up == ["rtc_1"]
    assert results[0].failed_phase == "signaling"
    assert "takes no keys" in (results[0].error or "")


async def test_dead_udp_port_fails_in_ice_and_still_hangs_up(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch, dead=True) as peer:
        results, _ = await dial(_plan(peer, voice, timeout_s=1.0))
        assert peer.hung_up == ["rtc_1"]
    assert results[0].failed_phase == "ice"
    assert "nothing listens on that UDP port" in (results[0].error or "")


async def test_silent_server_fails_at_the_first_audio(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch, mode="silent") as peer:
        results, _ = await dial(_plan(peer, voice, timeout_s=4.0))
    assert results[0].failed_phase == "first_audio"
    assert "no packet came" in (results[0].error or "")


async def test_call_that_the_server_ends_is_a_failed_one(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    async with _peer(monkeypatch) as peer, aiohttp.ClientSession() as http:
        line = Line(http, calls_url(peer.url, "echo"), Token("right", "x"), voice, Pacer(), timeout_s=30.0)
        call = Call(line)
        running = asyncio.create_task(call.run(60.0))
        while call.state != "talk":
            assert not running.done()
            await asyncio.sleep(0.01)
        await peer.connections["rtc_1"].close()
        result = await asyncio.wait_for(running, 60)
    assert (result.outcome, result.failed_phase) == ("failed", "talk")
    assert "the server ended the call" in (result.error or "")


async def test_stopping_hangs_up_a_call_that_talks_and_gives_up_one_that_rings(
    monkeypatch: pytest.MonkeyPatch, voice: Voice
) -> None:
    async with _peer(monkeypatch) as peer, aiohttp.ClientSession() as http:
        line = Line(http, calls_url(peer.url, "echo"), Token("right", "x"), voice, Pacer(), timeout_s=30.0)
        talking, ringing = Call(line, 1), Call(line, 2)
        first = asyncio.create_task(talking.run(600.0))
        while talking.state != "talk":
            assert not first.done()
            await asyncio.sleep(0.01)
        peer.dead = True
        second = asyncio.create_task(ringing.run(600.0))
        while ringing.state != "ice":
            assert not second.done()
            await asyncio.sleep(0.01)
        for call in (talking, ringing):
            call.stop()
        results = [await asyncio.wait_for(first, 60), await asyncio.wait_for(second, 60)]
        assert [r.outcome for r in results] == ["ok", "interrupted"]
        assert sorted(peer.hung_up) == ["rtc_1", "rtc_2"]


async def test_ctrl_c_hangs_up_and_still_gives_results(monkeypatch: pytest.MonkeyPatch, voice: Voice) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def watch(results: Sequence[Result], states: Sequence[str]) -> None:
        assert len(results) == 2
        if states == ["talk", "waiting"]:
            signal.raise_signal(signal.SIGINT)

    async with _peer(monkeypatch) as peer:
        plan = _plan(peer, voice, calls=2, rate=0.001, talk_s=600.0)
        results, _ = await asyncio.wait_for(dial(plan, watch), 60)
        assert peer.hung_up == ["rtc_1"]
    assert [r.outcome for r in results] == ["ok", "interrupted"]
    assert signal.getsignal(signal.SIGTERM) == before


async def _run_cli(*arguments: str, token: str = "right") -> Any:
    runner = CliRunner(env={"FIRSTHOP_TOKEN": token})
    return await asyncio.to_thread(runner.invoke, command, arguments)


async def test_command_prints_figures_and_exits_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _peer(monkeypatch) as peer:
        shown = await _run_cli(peer.url, "--duration", "0.5", "--json", "--timeout", "30")
        assert shown.exit_code == 0, shown.output
        assert json.loads(shown.stdout)["calls"]["ok"] == 1
        shown = await _run_cli(peer.url, "--duration", "0.5", "--timeout", "30")
        assert shown.exit_code == 0, shown.output
        assert "1 of 1 calls good" in shown.stdout


async def test_command_exits_with_1_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _peer(monkeypatch) as peer:
        shown = await _run_cli(peer.url, token="wrong")
        assert shown.exit_code == 1
        assert "token from FIRSTHOP_TOKEN was refused" in shown.stdout
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
        shown = await _run_cli(f"http://127.0.0.1:{free}", "--json")
    assert shown.exit_code == 1
    [failed] = json.loads(shown.stdout)["per_call"]
    assert failed["failed_phase"] == "signaling"
    assert failed["error"].startswith(f"nothing answers at http://127.0.0.1:{free}: ")


async def test_address_that_is_not_ours_is_named(voice: Voice) -> None:
    for bind in ("192.0.2.1", "::1"):
        results, _ = await dial(Plan("http://127.0.0.1:9/", voice, bind=bind))
        assert "no way from --bind to 127.0.0.1:9" in (results[0].error or "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["not a url"],
        ["http://127.0.0.1:1", "-n", "0"],
        ["http://127.0.0.1:1", "--bind", "localhost"],
        ["http://127.0.0.1:1", "--dtmf", "12x"],
        ["http://127.0.0.1:1", "--voice", __file__],
        ["http://127.0.0.1:1", "--token-file", "missing"],
    ],
)
def test_wrong_command_line_exits_with_2(arguments: list[str]) -> None:
    shown = CliRunner().invoke(command, arguments)
    assert shown.exit_code == 2, shown.output
    assert "Traceback" not in shown.output
