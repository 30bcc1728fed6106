"""Packets back in order, and gaps given up."""

from __future__ import annotations

import random

import pytest

from transceiver.reorder import PATIENCE, Reorder
from transceiver.rtp import Packet


def packet(sequence: int) -> Packet:
    return Packet(111, False, sequence & 0xFFFF, 0, 1, b"%d" % sequence)


def played(reorder: Reorder, *sequences: int) -> list[int | None]:
    """What comes out when these go in; None is a gap."""
    out = [ready for sequence in sequences for ready in reorder.push(packet(sequence))]
    return [ready.sequence if ready else None for ready in out]


def test_packets_in_order_pass_at_once() -> None:
    reorder = Reorder()
    for sequence in range(100, 200):
        assert played(reorder, sequence) == [sequence]
    assert reorder.late == 0


def test_order_survives_the_wrap() -> None:
    assert played(Reorder(), 65534, 65535, 0, 1) == [65534, 65535, 0, 1]
    assert played(Reorder(), 65534, 0, 65535, 1) == [65534, 65535, 0, 1]


def test_two_that_changed_places_change_back() -> None:
    assert played(Reorder(), 1, 3, 2, 4) == [1, 2, 3, 4]


def test_a_gap_is_waited_for_until_three_later_packets_are_there() -> None:
    reorder = Reorder()
    assert played(reorder, 1, 3, 4) == [1]
    assert played(reorder, 5) == [None, 3, 4, 5]
    assert played(reorder, 6) == [6]
    assert PATIENCE == 3


def test_each_packet_of_a_gap_is_a_gap() -> None:
    assert played(Reorder(), 1, 5, 6, 7) == [1, None, None, None, 5, 6, 7]


def test_two_gaps_at_once_are_given_up_one_after_the_other() -> None:
    reorder = Reorder()
    assert played(reorder, 1, 3, 5, 7) == [1, None, 3]
    assert played(reorder, 8) == [None, 5]
    assert played(reorder, 6) == [6, 7, 8]


def test_what_comes_too_late_is_counted_and_not_played() -> None:
    reorder = Reorder()
    assert played(reorder, 1, 3, 4, 5, 2) == [1, None, 3, 4, 5]
    assert reorder.late == 1


def test_duplicates_are_counted_and_not_played() -> None:
    reorder = Reorder()
    assert played(reorder, 1, 1, 3, 3, 2, 2) == [1, 2, 3]
    assert reorder.late == 3


@pytest.mark.parametrize("jump", [501, 1000, 30000, -501, -30000])
def test_a_far_jump_is_a_new_beginning(jump: int) -> None:
    reorder = Reorder()
    assert played(reorder, 1000, 1001) == [1000, 1001]
    start = (1002 + jump) & 0xFFFF
    assert played(reorder, start, start + 1) == [start, (start + 1) & 0xFFFF]
    assert reorder.late == 0


def test_what_was_held_before_a_jump_is_not_played_after_it() -> None:
    assert played(Reorder(), 1, 3, 10000, 10001, 10002) == [1, 10000, 10001, 10002]


def test_no_packet_is_ever_played_twice_or_out_of_order() -> None:
    rng = random.Random(11)
    for _ in range(50):
        start = rng.randrange(1 << 16)
        reorder = Reorder()
        sent = [i for i in range(400) if rng.random() > 0.1 or i == 0]
        # The first stays first; others move by up to five places, and some come twice.
        sent = [sent[0], *sorted(sent[1:], key=lambda i: i + rng.random() * 5)]
        sent = [i for i in sent for _ in range(1 + (rng.random() < 0.1))]
        out = played(reorder, *(start + i for i in sent))
        # Gap or not, each place is filled exactly once.
        expected = [(start + i) & 0xFFFF for i in range(len(out))]
        assert all(ready in (None, place) for ready, place in zip(out, expected, strict=True))
        assert sum(ready is not None for ready in out) + reorder.late + PATIENCE > len(sent)
