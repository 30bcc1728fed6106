"""The jitter buffer under everything that networks and senders do to packets, in simulated time."""

from __future__ import annotations

import pytest
from arrivals import COPIED, DTX, Played, lossy, payload, stream, uniform

from rtc.jitter.buffer import NOTHING, PLAY, RECOVER, Came, JitterBuffer
from rtc.rtp.packet import Packet


def pausing(now: float) -> bool:
    """Somebody who is silent for one second in three."""
    return int(now) % 3 == 0


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def a_buffer() -> JitterBuffer:
    return JitterBuffer(48000, lambda p: p[1] * 480, lambda p: p[:1] == COPIED)


def packet(sequence: int, timestamp: int | None = None, kind: bytes = b"s") -> Packet:
    at = 960 * sequence if timestamp is None else timestamp
    return Packet(111, False, sequence & 0xFFFF, at & 0xFFFFFFFF, 1, payload(kind))


# --- clean networks ---


@pytest.mark.parametrize("phase_ms", range(1, 20, 3))
def test_on_a_clean_network_a_packet_is_held_for_20_ms_at_most_and_all_are_played(phase_ms: int) -> None:
    played = Played(stream(500), phase=phase_ms / 1000)
    assert played.counts["play"] == 500
    assert played.counts["conceal"] <= 5  # when the stream has ended
    assert max(held for _, held in played.held_ms) <= 24.0


@pytest.mark.parametrize("ms", [10, 20, 40, 60])
def test_packets_of_every_length_are_played_whole_and_in_order(ms: int) -> None:
    played = Played(stream(300, ms=ms))
    assert played.order == [100 + i for i in range(300)]
    assert max(held for _, held in played.held_ms) <= 24.0


def test_sequence_and_timestamp_wrap() -> None:
    played = Played(stream(500, sequence=65400, timestamp=(1 << 32) - 100_000))
    assert played.order == [(65400 + i) & 0xFFFF for i in range(500)]
    assert played.counts["conceal"] <= 5


@pytest.mark.parametrize("ppm", [200, -200])
def test_clocks_that_drift_apart_for_ten_minutes_neither_starve_nor_fill_the_buffer(ppm: int) -> None:
    played = Played(stream(30_000, ppm=ppm), quiet=pausing)
    # 200 ppm of 600 s are 120 ms: six frames more or fewer.
    assert played.counts["conceal"] - 5 + played.counts["expand"] <= 7
    assert played.counts["left out"] <= 7
    assert max(held for _, held in played.held_ms) <= 45.0


def test_before_anything_has_come_there_is_nothing() -> None:
    assert a_buffer().pop(1.0, False) == NOTHING


# --- jitter and order ---


@pytest.mark.parametrize("jitter_ms", [5, 20, 60])
@pytest.mark.parametrize("seed", range(3))
def test_the_wait_becomes_what_the_jitter_asks_for(jitter_ms: int, seed: int) -> None:
    played = Played(stream(3000, delay=uniform(jitter_ms, seed)), quiet=pausing)
    assert jitter_ms * 0.8 <= played.buffer.wait_ms <= jitter_ms + 6
    assert played.counts["late"] + played.counts["conceal"] <= 0.02 * 3000
    assert max(played.held_after(5.0)) <= jitter_ms + 20 + 10 + 20


def test_the_wait_falls_when_the_jitter_is_over() -> None:
    jittery = uniform(60)
    played = Played(stream(6000, delay=lambda i: jittery(i) if i < 1000 else 0.05), quiet=pausing)
    assert played.buffer.wait_ms <= 6
    assert median(played.held_after(100.0)) <= 30


def test_the_wait_rises_within_a_second_or_two() -> None:
    jittery = uniform(60)
    played = Played(stream(1150, delay=lambda i: jittery(i) if i >= 1000 else 0.05), quiet=pausing)
    assert played.buffer.wait_ms >= 45


def test_two_that_changed_places_change_back() -> None:
    played = Played(stream(500, delay=lambda i: 0.05 + (0.021 if i % 10 == 5 else 0)), quiet=pausing)
    assert played.counts["play"] >= 490
    assert played.order == sorted(played.order)


def test_duplicates_are_told_and_not_played() -> None:
    twice = [arrival for arrival in stream(100) for _ in range(2)]
    played = Played(twice)
    assert played.order == [100 + i for i in range(100)]
    assert played.counts["duplicate"] == 100


def test_a_burst_after_a_stall_is_played_and_the_delay_goes_again() -> None:
    def stalls(i: int) -> float:
        return 0.05 + max(0.0, 0.2 - (i - 500) * 0.02) if i >= 500 else 0.05

    played = Played(stream(3000, delay=stalls), quiet=pausing)
    assert played.counts["play"] >= 2999
    assert played.counts["late"] <= 1
    assert median(played.held_after(20.0)) <= 30


# --- loss ---


def test_one_lost_packet_is_concealed_and_stalls_nothing() -> None:
    played = Played(stream(200, delay=lambda i: None if i == 100 else 0.05))
    assert played.counts["conceal"] == 1 + 5
    assert played.counts["play"] == 199
    assert max(held for _, held in played.held_ms) <= 24.0


@pytest.mark.parametrize("seed", range(3))
def test_ten_percent_lost_without_copies_adds_no_delay(seed: int) -> None:
    arrivals = stream(2000, delay=lossy(0.1, seed))
    played = Played(arrivals)
    assert played.counts["play"] == len(arrivals)
    assert played.counts["conceal"] == pytest.approx(2000 - len(arrivals), abs=8)
    assert max(held for _, held in played.held_ms) <= 24.0


@pytest.mark.parametrize("seed", range(3))
def test_copies_bring_back_nine_of_ten_lost_packets_for_a_frame_of_delay(seed: int) -> None:
    arrivals = stream(3000, delay=lossy(0.1, seed), kind=COPIED)
    played = Played(arrivals)
    lost = 3000 - len(arrivals)
    assert played.counts["recover"] >= 0.8 * lost
    assert played.counts["recover"] + played.counts["conceal"] == pytest.approx(lost, abs=10)
    assert max(held for _, held in played.held_ms) <= 24.0 + 20 + 6


def test_retransmissions_are_waited_for_when_they_can_come_in_time() -> None:
    buffer = a_buffer()
    buffer.return_ms = 25.0
    Played(stream(500, delay=lossy(0.1)), buffer=buffer)
    assert buffer.lossy
    assert buffer.wait_ms == pytest.approx(4 + 25 + 20 + 6, abs=4)
    buffer.return_ms = 200.0
    assert buffer.wait_ms <= 6


def test_a_packet_that_came_again_is_played_as_such_and_does_not_raise_the_wait() -> None:
    buffer = a_buffer()
    for i in range(3):
        buffer.push(packet(i), i * 0.02)
    buffer.push(packet(4), 0.08)
    wait = buffer.wait_ms
    buffer.push(packet(3), 5.0, Came.AGAIN)
    assert buffer.wait_ms == wait
    came = []
    for _ in range(5):
        assert buffer.pop(5.0, False) != NOTHING
        came.append(buffer.came)
    assert came == [Came.FRESH] * 3 + [Came.AGAIN, Came.FRESH]


def test_when_a_packet_is_due_is_known() -> None:
    buffer = a_buffer()
    assert buffer.until_due_ms(5, 1.0) < 0
    buffer.push(packet(10), 1.0)
    buffer.push(packet(12), 1.04)
    assert buffer.pop(1.01, False) == PLAY
    assert buffer.until_due_ms(10, 1.01) < 0
    assert buffer.until_due_ms(11, 1.01) == pytest.approx(20)
    assert buffer.until_due_ms(13, 1.02) == pytest.approx(50)


# --- pauses ---


def test_packets_with_nothing_in_them_are_no_loss_and_take_no_time() -> None:
    buffer, actions, sequence = a_buffer(), [], 65500
    for i in range(200):
        buffer.push(Packet(111, False, sequence & 0xFFFF, 960 * i, 1, payload()), i * 0.02)
        sequence += 1
        for _ in range(i % 10 == 3):
            # A burst, sent late, with the clock of the last packet (as libwebrtc does).
            empty = Packet(111, False, sequence & 0xFFFF, 960 * i, 1, b"")
            assert buffer.push(empty, i * 0.02 + 0.005) == "padding"
            sequence += 1
        actions.append(buffer.pop(i * 0.02 + 0.006, False))
    assert actions == [PLAY] * 200
    assert buffer.wait_ms <= 4
    assert not buffer._empty


def test_a_loss_beside_packets_with_nothing_in_them_is_one_loss() -> None:
    buffer = a_buffer()
    buffer.push(packet(0), 0.0)
    buffer.push(packet(2, 960, b"")._replace(payload=b""), 0.03)
    buffer.push(packet(3, 1920, COPIED), 0.04)
    assert [buffer.pop(0.01 + i * 0.02, False) for i in range(1)] == [PLAY]
    assert buffer.pop(0.03, False) == RECOVER
    assert buffer.pop(0.05, False) == PLAY


def test_numbers_of_nothing_are_bounded() -> None:
    buffer = a_buffer()
    buffer.push(packet(0), 0.0)
    for i in range(2, 5000):
        buffer.push(packet(i)._replace(payload=b""), 0.02)
    assert len(buffer._empty) <= 64


def test_a_number_of_nothing_that_was_passed_is_forgotten() -> None:
    buffer = a_buffer()
    buffer.push(packet(10), 0.0)
    assert buffer.pop(0.01, False) == PLAY
    buffer.push(packet(5)._replace(payload=b""), 0.015)
    buffer.push(packet(11), 0.02)
    assert buffer.pop(0.03, False) == PLAY
    assert not buffer._empty


def test_a_sender_that_pauses_is_heard_at_once_when_it_speaks_again() -> None:
    talk = stream(50)
    # An update every 400 ms: the number runs on, the clock with the time (RFC 7587 section 3.1.3).
    updates = [(1001.05 + 0.4 * i, packet(150 + i, 5000 + 960 * 50 + 19200 * i, DTX)) for i in range(10)]
    again = stream(50, start=1005.0, sequence=160, timestamp=5000 + 48000 * 5)
    played = Played(talk + updates + again)
    assert played.counts["play"] == 110
    assert played.counts["conceal"] <= 5
    assert max(held for _, held in played.held_ms) <= 24.0


@pytest.mark.parametrize("clock_ran", [True, False])
def test_after_a_minute_of_nothing_it_is_heard_again_within_100_ms(clock_ran: bool) -> None:
    back = 1062.0
    timestamp = 5000 + (62 * 48000 if clock_ran else 100 * 960)
    played = Played(stream(100) + stream(200, start=back, sequence=200, timestamp=timestamp))
    assert played.counts["play"] == 300
    assert played.counts["comfort"] > 2900
    assert played.counts["conceal"] <= 10
    assert played.at[200] - (back + 0.05) <= 0.1
    assert median(played.held_after(62.0)) <= 24.0


# --- what should not be ---


def test_ten_times_real_time_is_bounded_and_the_excess_counted() -> None:
    flood = [(1000 + i * 0.002, packet(i)) for i in range(5000)]
    played = Played(flood, seconds=11)
    assert played.buffer.held <= 12
    assert played.buffer.dropped > 4000
    assert sum(played.counts[name] for name in ("play", "comfort", "conceal")) >= 500
    assert max(held for _, held in played.held_ms) <= 260


def test_many_tiny_packets_are_bounded() -> None:
    buffer = a_buffer()
    for i in range(1000):
        buffer.push(packet(i, i), 1.0)
    assert buffer.held <= 64
    assert buffer.dropped == 1000 - 64


@pytest.mark.parametrize("jump", [150, 2000, 40000])
def test_a_new_stream_is_heard_from_its_first_packets_on(jump: int) -> None:
    buffer = a_buffer()
    Played(stream(100), buffer=buffer)
    buffer.restart()
    played = Played(stream(100, sequence=jump, timestamp=77, start=2000.0), buffer=buffer)
    assert played.order == [jump + i for i in range(100)]


@pytest.mark.parametrize("jump", [50, 200, 1000])
def test_a_jump_of_the_numbers_costs_no_more_than_its_time(jump: int) -> None:
    played = Played(stream(100) + stream(100, sequence=200 + jump, timestamp=5000 + 960 * 100, start=1002.0))
    assert played.counts["play"] == 200
    assert played.counts["conceal"] <= 10


def test_a_copy_is_decoded_from_the_packet_after_the_lost_one() -> None:
    buffer = a_buffer()
    for i in (0, 2):
        buffer.push(packet(i, kind=COPIED), i * 0.02)
    assert buffer.pop(0.03, False) == PLAY
    assert buffer.pop(0.05, False) == RECOVER
    assert (buffer.payload, buffer.ticks) == (packet(2, kind=COPIED).payload, 960)
    assert buffer.pop(0.07, False) == PLAY
