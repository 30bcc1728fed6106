"""The outgoing stream: sequence, clock, marker and what is said, tick by tick."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from session_run import gained

from rtc.codecs.opus import SILENCE, Decoder
from rtc.rtp import packet as rtp
from rtc.rtp.packet import Packet
from transceiver.counters import TX_FRAMES
from transceiver.media.voice import RATE_HZ, Voice


class Ear:
    """A voice and everything that it sent."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.voice = Voice(111, self._take)

    def _take(self, datagram: bytes) -> None:
        packet = rtp.parse(datagram)
        assert packet is not None
        self.packets.append(packet)

    def tick(self, times: int = 1) -> list[Packet]:
        """Ticks, and returns what was sent."""
        before = len(self.packets)
        for _ in range(times):
            self.voice.tick()
        return self.packets[before:]

    def spoke(self, times: int = 1) -> list[bool]:
        return [packet.payload != SILENCE for packet in self.tick(times)]


def tone(seconds: float) -> bytes:
    return (8000 * np.sin(2 * np.pi * 300 * np.arange(round(RATE_HZ * seconds)) / RATE_HZ)).astype(np.int16).tobytes()


def test_each_tick_is_one_packet_whose_clock_and_number_run_on() -> None:
    ear = Ear()
    ear.tick(5)
    ear.voice.say(tone(0.1))
    ear.tick(10)
    ear.voice.say(tone(0.05))
    ear.tick(10)
    first = ear.packets[0]
    assert len(ear.packets) == 25
    for i, packet in enumerate(ear.packets):
        assert packet.sequence == (first.sequence + i) & 0xFFFF
        assert packet.timestamp == (first.timestamp + 960 * i) & 0xFFFFFFFF
        assert (packet.ssrc, packet.payload_type) == (ear.voice.ssrc, 111)


def test_number_and_clock_wrap() -> None:
    ear = Ear()
    # Whatever they began with, both cross their end: 65,536 packets for the number, a set clock for the time.
    ear.voice.timestamp = 0xFFFFFFFF - 960
    packets = ear.tick(65536 + 2)
    assert packets[0].sequence == packets[65536].sequence
    assert packets[2].timestamp == (packets[0].timestamp + 1920) & 0xFFFFFFFF < packets[0].timestamp


def test_silence_is_sent_while_nothing_is_said() -> None:
    ear, before = Ear(), Counter(TX_FRAMES)
    assert ear.spoke(3) == [False] * 3
    assert not any(packet.marker for packet in ear.packets)
    assert gained(before, TX_FRAMES) == {"silence": 3}


def test_what_is_said_is_heard_and_then_it_is_silent_again() -> None:
    ear, before = Ear(), Counter(TX_FRAMES)
    ear.voice.say(tone(0.2))
    assert ear.spoke(12) == [True] * 10 + [False] * 2
    assert gained(before, TX_FRAMES) == {"sent": 10, "silence": 2}
    decoder = Decoder(RATE_HZ)
    heard = np.frombuffer(b"".join(decoder.decode(packet.payload) for packet in ear.packets[:10]), np.int16)
    assert len(heard) == 4800
    assert np.abs(heard[960:].astype(float)).mean() == pytest.approx(8000 * 2 / np.pi, rel=0.15)


def test_the_marker_stands_at_the_beginning_of_each_talkspurt() -> None:
    ear = Ear()
    ear.tick(2)
    ear.voice.say(tone(0.06))
    ear.tick(5)
    ear.voice.say(tone(0.04))
    ear.tick(3)
    assert [i for i, packet in enumerate(ear.packets) if packet.marker] == [2, 7]


def test_speech_in_any_pieces_is_the_same_speech() -> None:
    whole, pieces = Ear(), Ear()
    pcm = tone(0.1)
    whole.voice.say(pcm)
    for at in range(0, len(pcm), 7):
        pieces.voice.say(pcm[at : at + 7])
    assert [p.payload for p in whole.tick(6)] == [p.payload for p in pieces.tick(6)]


@pytest.mark.parametrize("pcm", [b"\1", b"\1\2", bytes(959), bytes(961)])
def test_a_last_piece_is_filled_up_with_silence(pcm: bytes) -> None:
    ear = Ear()
    ear.voice.say(pcm)
    frames = -(-len(pcm) // 960)
    ear.tick(frames + 1)
    assert all(rtp_packet.payload for rtp_packet in ear.packets)
    assert ear.packets[frames].payload == SILENCE


def test_stop_forgets_at_once_what_was_not_said() -> None:
    ear = Ear()
    ear.voice.say(tone(5.0))
    assert ear.spoke(2) == [True, True]
    ear.voice.stop()
    assert ear.spoke(3) == [False] * 3
    ear.voice.say(tone(0.02))
    assert ear.spoke(2) == [True, False]


def test_stopping_silence_is_no_trouble() -> None:
    ear = Ear()
    ear.voice.stop()
    assert ear.spoke() == [False]


def test_no_more_than_a_minute_waits_and_the_rest_is_counted() -> None:
    ear, before = Ear(), Counter(TX_FRAMES)
    minute = bytes(60 * RATE_HZ * 2)
    ear.voice.say(minute[:-960])
    ear.voice.say(bytes(960))
    ear.voice.say(bytes(1920))
    assert gained(before, TX_FRAMES) == {"overflow": 2}
    ear.tick()
    ear.voice.say(bytes(960))
    assert gained(before, TX_FRAMES) == {"overflow": 2, "sent": 1}
    ear.voice.say(minute)
    assert gained(before, TX_FRAMES) == {"overflow": 2 + 3000, "sent": 1}


def test_saying_nothing_is_nothing() -> None:
    ear = Ear()
    ear.voice.say(b"")
    assert ear.spoke() == [False]


def test_opus_that_is_passed_on_keeps_its_payload_marker_and_distances() -> None:
    ear = Ear()
    for payload, timestamp, marker in ((b"a", 0xFFFFFF00, True), (b"b", 0x2C0, False), (b"c", 0x2C0 + 9600, True)):
        ear.voice.pass_on(payload, timestamp, marker)
    first = ear.packets[0]
    assert [(p.payload, p.marker) for p in ear.packets] == [(b"a", True), (b"b", False), (b"c", True)]
    assert [(p.timestamp - first.timestamp) & 0xFFFFFFFF for p in ear.packets] == [0, 960, 960 + 9600]
    assert [(p.sequence - first.sequence) & 0xFFFF for p in ear.packets] == [0, 1, 2]


def test_packets_and_octets_are_counted_for_the_reports() -> None:
    ear = Ear()
    ear.voice.say(tone(0.1))
    ear.tick(8)
    assert ear.voice.packets == 8
    assert ear.voice.octets == sum(len(packet.payload) for packet in ear.packets)


def test_no_two_voices_have_the_same_ssrc() -> None:
    assert len({Ear().voice.ssrc for _ in range(200)}) == 200


def test_what_nobody_takes_is_said_in_its_time_and_not_sent() -> None:
    before = Counter(TX_FRAMES)
    voice = Voice(111, None)
    voice.say(tone(0.04))
    voice.pass_on(SILENCE, 960, marker=False)
    said = []
    for _ in range(4):
        voice.tick()
        said.append(bool(voice.said))
    assert said == [True, True, False, False]
    assert (voice.packets, voice.octets) == (0, 0)
    assert gained(before, TX_FRAMES) == {}
