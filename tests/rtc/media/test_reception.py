"""The statistics of a received stream: RFC 3550 appendix A, with the clock as an argument."""

from __future__ import annotations

import random

import pytest

from rtc.rtp.packet import Packet
from rtc.rtp.reception import Reception


def packet(sequence: int, timestamp: int | None = None, ssrc: int = 1) -> Packet:
    return Packet(
        111, False, sequence & 0xFFFF, (960 * sequence if timestamp is None else timestamp) & 0xFFFFFFFF, ssrc, b""
    )


def after(*sequences: int) -> Reception:
    """A reception that received these on time."""
    reception = Reception()
    for sequence in sequences:
        reception.add(packet(sequence), sequence * 0.02)
    return reception


def test_before_the_first_packet_nothing_is_known() -> None:
    reception = Reception()
    assert (reception.ssrc, reception.received, reception.lost, reception.jitter) == (None, 0, 0, 0)
    assert reception.fraction_lost() == 0
    assert reception.first_at is None


def test_a_whole_stream_has_lost_nothing() -> None:
    reception = after(*range(1000, 2000))
    assert (reception.ssrc, reception.received, reception.lost) == (1, 1000, 0)
    assert reception.highest == 1999
    assert reception.first_at == 20.0


@pytest.mark.parametrize("start", [0, 100, 65000, 65535])
def test_loss_is_counted_across_the_wrap(start: int) -> None:
    rng = random.Random(start)
    kept = [i for i in range(3000) if i in (0, 2999) or rng.random() > 0.1]
    reception = after(*(start + i for i in kept))
    assert reception.received == len(kept)
    assert reception.lost == 3000 - len(kept)
    assert reception.highest == start + 2999


def test_the_highest_sequence_number_counts_the_wraps() -> None:
    assert after(*range(65000, 65536 * 2 + 10, 500), 65536 * 2 + 10).highest == 65536 * 2 + 10


def test_a_late_packet_makes_up_for_its_loss() -> None:
    reception = after(1, 2, 4, 5)
    assert reception.lost == 1
    assert reception.add(packet(3), 0.2)
    assert (reception.lost, reception.reordered, reception.highest) == (0, 1, 5)


def test_a_duplicate_makes_up_for_nothing() -> None:
    reception = after(1, 2, 4)
    assert not reception.add(packet(4), 1.0)
    assert not reception.add(packet(2), 1.0)
    assert (reception.lost, reception.duplicates, reception.received) == (1, 2, 3)


def test_a_packet_from_before_the_first_one_belongs_to_the_stream() -> None:
    reception = after(10, 11)
    assert reception.add(packet(8), 1.0)
    assert (reception.received, reception.lost) == (3, 1)


def test_the_fraction_is_of_what_was_expected_since_the_last_report() -> None:
    reception = after(*range(100))
    assert reception.fraction_lost() == 0
    for sequence in range(100, 200, 2):
        reception.add(packet(sequence), sequence * 0.02)
    assert reception.fraction_lost() == pytest.approx(128, abs=3)
    assert reception.fraction_lost() == 0
    for sequence in range(199, 300):
        reception.add(packet(sequence), sequence * 0.02)
    # The one that came late makes the loss of this interval negative: that is none.
    assert reception.fraction_lost() == 0


def test_the_fraction_fits_its_8_bits() -> None:
    reception = after(0)
    reception.fraction_lost()
    reception.add(packet(2500), 50.0)
    assert 250 <= reception.fraction_lost() <= 255


@pytest.mark.parametrize("jump", [4000, 30000, -4000])
def test_a_far_jump_is_a_new_stream_and_no_loss(jump: int) -> None:
    reception = after(10000, 10001, 10003)
    for i in range(10):
        reception.add(packet(10000 + jump + i), 300.0)
    assert (reception.received, reception.lost) == (13, 1)


def test_another_ssrc_is_a_new_stream_and_keeps_what_was_counted() -> None:
    reception = after(1, 2, 4)
    reception.add(packet(9, ssrc=2), 1.0)
    reception.add(packet(11, ssrc=2), 1.0)
    assert (reception.ssrc, reception.received, reception.lost, reception.highest) == (2, 5, 2, 11)


def test_packets_on_time_have_no_jitter() -> None:
    assert after(*range(500)).jitter == 0
    assert after(*range(0, 500, 3)).jitter == 0


def test_jitter_is_that_of_rfc_3550() -> None:
    reception, rng = Reception(), random.Random(8)
    expected, transit = 0.0, None
    for sequence in range(500):
        at = sequence * 0.02 + rng.random() * 0.03
        reception.add(packet(sequence), at)
        # Appendix A.8, in floating point.
        now = at * 48000 - 960 * sequence
        if transit is not None:
            expected += (abs(now - transit) - expected) / 16
        transit = now
    assert reception.jitter == pytest.approx(expected, abs=2)
    assert reception.jitter_ms == pytest.approx(expected / 48, rel=0.01)


def test_a_timestamp_that_wraps_is_no_jitter() -> None:
    reception = Reception()
    for i in range(100):
        reception.add(packet(i, timestamp=(1 << 32) - 48000 + 960 * i), i * 0.02)
    assert reception.jitter == 0


def test_a_random_timestamp_never_raises_and_fits_32_bits() -> None:
    reception, rng = Reception(), random.Random(9)
    for i in range(2000):
        reception.add(packet(i, timestamp=rng.randrange(1 << 32)), i * 0.02)
    assert 0 <= reception.jitter < 1 << 32


def test_the_longest_gap_includes_the_silence_at_the_end() -> None:
    reception = Reception()
    for at in (0.0, 0.02, 0.30, 0.32):
        reception.add(packet(round(at / 0.02)), at)
    assert reception.longest_gap_ms == pytest.approx(280)
    reception.finish(1.32)
    assert reception.longest_gap_ms == pytest.approx(1000)
