"""A way on which media is put and none arrives, as the edge notices it."""

from __future__ import annotations

from edge.silence import SILENT_S, Silence


def judged(*said: tuple[float, int, int]) -> list[bool]:
    """What is made of each (time, seen by XDP, taken by the reader)."""
    silence = Silence()
    return [silence.heard(seen, taken, now) for now, seen, taken in said]


def test_media_that_is_put_there_and_not_taken_is_noticed_after_three_seconds() -> None:
    assert judged(*((t, 7 + t, 100) for t in range(6))) == [False] * 4 + [True] * 2


def test_what_is_taken_is_heard_however_little_it_is() -> None:
    assert not any(judged(*((t, 50 * t, t // 2) for t in range(100))))


def test_a_way_that_nobody_uses_is_not_silent() -> None:
    assert not any(judged(*((t, 3, 100) for t in range(100))))


def test_silence_begins_with_the_first_media_and_not_with_the_last_that_was_taken() -> None:
    idle = [(t, 3, 100) for t in range(100)]
    assert judged(*idle, (100, 4, 100), (101, 5, 100), (102, 6, 100), (103, 7, 100))[99:] == [False] * 4 + [True]


def test_single_datagrams_that_are_lost_are_no_silence() -> None:
    """Such as those whose checksum is wrong, of a caller who says nothing else."""
    assert not any(judged(*((t, t // 5, 100) for t in range(100))))


def test_a_reader_that_stood_still_is_not_judged_by_what_came_meanwhile() -> None:
    assert judged((0, 1, 100), (0 + 10 * SILENT_S, 500, 100), (10 * SILENT_S + 1, 501, 900)) == [False] * 3


def test_the_number_may_begin_anew() -> None:
    assert not any(judged((0, 1 << 31, 1), (1, 0, 2), (2, 1, 3)))
