"""A way on which media is put and none arrives, as the edge notices it."""

from __future__ import annotations

from edge.silence import SILENT_S, Judgement, Silence


def judged(*said: tuple[float, int, int]) -> list[Judgement]:
    """What is made of each (time, seen by XDP, taken by the reader)."""
    silence = Silence()
    return [silence.judge(seen, taken, now) for now, seen, taken in said]


def test_media_that_is_put_there_and_not_taken_is_noticed_after_three_seconds() -> None:
    assert judged(*((t, 7 + t, 100) for t in range(6))) == ["heard"] * 2 + ["doubted"] * 2 + ["silent"] * 2


def test_what_is_taken_is_heard_however_little_it_is() -> None:
    said = judged(*((t, 50 * t, t // 2) for t in range(100)))
    assert set(said) == {"heard"}


def test_what_is_taken_of_our_own_is_enough_whatever_becomes_of_the_clients_packets() -> None:
    silence, taken, said = Silence(), 100, []
    for t in range(1000):
        said.append(silence.judge(t, taken, float(t)))
        taken += said[-1] == "doubted"
    assert set(said) == {"heard", "doubted"}


def test_a_way_that_nobody_uses_is_not_silent() -> None:
    assert set(judged(*((t, 3, 100) for t in range(100)))) == {"heard"}


def test_silence_begins_with_the_first_media_and_not_with_the_last_that_was_taken() -> None:
    idle = [(t, 3, 100) for t in range(100)]
    said = judged(*idle, (100, 4, 100), (101, 5, 100), (102, 6, 100), (103, 7, 100))
    assert said[99:] == ["heard"] * 2 + ["doubted"] * 2 + ["silent"]


def test_single_datagrams_that_are_lost_are_no_silence() -> None:
    """Such as those whose checksum is wrong, of a caller who says nothing else."""
    assert "silent" not in judged(*((t, t // 5, 100) for t in range(100)))


def test_a_reader_that_stood_still_is_not_judged_by_what_came_meanwhile() -> None:
    assert judged((0, 1, 100), (10 * SILENT_S, 500, 100), (10 * SILENT_S + 1, 501, 900)) == ["heard"] * 3


def test_who_judges_asks_first_however_late_he_is() -> None:
    assert judged((0, 1, 100), (1, 2, 100), (9, 3, 100), (9.1, 4, 100), (10, 5, 100))[2:] == [
        "doubted",
        "doubted",
        "silent",
    ]


def test_the_number_may_begin_anew() -> None:
    assert set(judged((0, 1 << 31, 1), (1, 0, 2), (2, 1, 3))) == {"heard"}
