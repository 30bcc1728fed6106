"""The statistics of a received stream: losses, duplicates and jitter, on either side of the sequence numbers' wrap."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rtc.rtp.packet import Packet
from rtc.rtp.reception import Reception


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
