"""The receive side as a whole: a sender that answers what it is asked, over a network that loses packets."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import replace

import pytest
from listening import OFFER, Ear
from session_run import gained

from rtc.codecs.opus import SILENCE
from rtc.rtp import packet as rtp
from transceiver.counters import RX_DATAGRAMS
from transceiver.media.receiver import Receiver

PAUSE = SILENCE[:1]


def conversation(round_trip_ms: float, *, loss: float, seconds: int = 60, seed: int = 1) -> tuple[Ear, int, int, float]:
    """The outcome of a stream whose sender resends: packets lost at first, resends, and the longest time that a packet
    took to be played in the last half, beyond the way."""
    ear, rng = Ear(), random.Random(seed)
    there, back = round_trip_ms / 2000, round_trip_ms / 2000
    queue: list[tuple[float, int]] = []
    lost = resent = 0
    came: dict[int, float] = {}
    longest = 0.0
    known = round_trip_ms / 1000

    def answer(sequences: list[int], now: float) -> None:
        nonlocal resent
        for sequence in sequences:
            resent += 1
            if rng.random() >= loss:
                heapq.heappush(queue, (now + back + there, sequence))

    for i in range(seconds * 50):
        if rng.random() < loss:
            lost += 1
        else:
            heapq.heappush(queue, (i * 0.02 + there, i))
        tick = i * 0.02 + 0.013
        while queue and queue[0][0] <= tick:
            at, sequence = heapq.heappop(queue)
            came.setdefault(sequence, at)
            if ear.take(sequence, at):
                answer(ear.asks(at, known), at)
        before = ear.playout.jitter._next
        ear.receiver.tick(tick)
        after = ear.playout.jitter._next
        if i > seconds * 25 and before is not None and after != before and before in came:
            longest = max(longest, (tick - before * 0.02 - there) * 1000)
        answer(ear.asks(tick, known), tick)
    return ear, lost, resent, longest


@pytest.mark.parametrize("round_trip_ms", [5, 20])
def test_a_tenth_lost_comes_again_in_time_for_at_most_60_ms(round_trip_ms: int) -> None:
    ear, lost, resent, longest_ms = conversation(round_trip_ms, loss=0.1)
    print(dict(ear.stats), lost, resent, longest_ms)
    assert ear.stats["nack"] >= 0.8 * lost
    assert ear.stats["concealed"] <= 0.2 * lost
    assert resent <= 1.5 * lost
    assert longest_ms <= 24 + 60


def test_where_the_way_is_too_long_nothing_is_asked_for_in_vain() -> None:
    ear, lost, resent, longest_ms = conversation(300, loss=0.1)
    assert ear.stats["nack"] == 0
    assert resent <= 0.1 * lost
    assert longest_ms <= 30


def test_nothing_is_asked_for_before_anything_came() -> None:
    assert list(Ear().receiver.feedback(1.0, 1, None)) == []


def test_without_nack_in_the_offer_nothing_is_asked_for() -> None:
    ear = Ear(replace(OFFER, nack=False))
    ear.take(1, 1.0)
    assert not ear.take(3, 1.04)
    assert ear.asks(1.05, 0.01) == []


def test_a_sender_that_pauses_is_silence_and_no_loss() -> None:
    ear = Ear()
    for i in range(20):
        ear.take(i, i * 0.02)
        ear.receiver.tick(i * 0.02 + 0.01)
    assert ear.stats == {"heard": 20}
    # One byte every 400 ms is an encoder's word that it sends nothing (RFC 7587 section 3.1.3).
    for k in range(10):
        plain = rtp.build(111, False, 20 + k, 960 * (20 + 20 * k), 7, PAUSE)
        ear.receiver.take(plain, 0.4 + k * 0.4)
        for tick in range(20):
            ear.receiver.tick(0.41 + k * 0.4 + tick * 0.02)
    assert ear.stats["concealed"] == 0
    assert ear.stats["heard"] == 30
    assert ear.stats["comfort"] == 190
    assert ear.receiver.reception.lost == 0
    assert len(ear.frames) == 20 + 200


def test_each_packet_is_counted_once() -> None:
    ear = Ear()
    before = Counter(RX_DATAGRAMS)
    ear.take(1, 1.0)
    ear.take(2, 1.02, payload_type=0)
    ear.take(2, 1.02, b"\x00", payload_type=63)
    ear.receiver.take(b"\x80", 1.03)
    ear.receiver.take(rtp.build(111, False, 9, 9, 8, SILENCE), 1.04)
    assert gained(before, RX_DATAGRAMS) == {"audio": 1, "other_payload": 1, "rtp_malformed": 2, "other_source": 1}


def test_what_is_passed_on_is_not_heard() -> None:
    passed: list[tuple[bytes, int, bool]] = []
    ear = Ear()
    receiver = Receiver(OFFER, ear.playout, lambda *packet: passed.append(packet))
    for i in (1, 3):
        assert not receiver.take(rtp.build(111, False, i, 960 * i, 7, SILENCE), i * 0.02)
        receiver.tick(i * 0.02 + 0.01)
    assert [timestamp for _, timestamp, _ in passed] == [960, 2880]
    assert ear.frames == []
    assert list(receiver.feedback(1.0, 1, None)) == []


def test_a_tenth_lost_is_taken_from_red_a_frame_later() -> None:
    ear, rng, lost = Ear(replace(OFFER, nack=False)), random.Random(3), 0
    head = bytes([0x80 | 111]) + (960 << 10 | len(SILENCE)).to_bytes(3, "big") + bytes([111])
    for i in range(3000):
        if rng.random() < 0.1:
            lost += 1
        else:
            ear.take(i, i * 0.02, head + SILENCE + SILENCE, payload_type=63)
        ear.receiver.tick(i * 0.02 + 0.013)
    print(dict(ear.stats))
    assert ear.stats["red"] >= 0.8 * lost
    assert ear.stats["concealed"] <= 0.2 * lost
    assert ear.playout.jitter.wait_ms <= 26
