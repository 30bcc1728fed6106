"""The benchmark of ends of turns: what it counts. No test looks at what a run found."""

from __future__ import annotations

import numpy as np
import pytest

from bench.endings.__main__ import joined, row, stops
from bench.endings.later import ANSWER_MS, Later
from bench.endings.material import AFTER_S, BEFORE_S, RATE_HZ, Turn, heard, turn
from bench.endings.report import same_cut_ms
from transceiver.engine.sound import Samples
from transceiver.realtime.config import ServerVad
from transceiver.realtime.listening import Listening


def said(pause_ms: int = 0) -> Turn:
    """Half a second of a voice, and as much again after a pause."""
    t = np.arange(RATE_HZ // 2) / RATE_HZ
    voice = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 20)) * 3000.0
    if not pause_ms:
        return turn("", np.concatenate([voice, voice]))
    past = len(voice) + pause_ms * RATE_HZ // 1000
    return turn("", np.concatenate([voice, np.zeros(past - len(voice)), voice]), ((len(voice), past),))


def ends_of(turn: Turn, silence_ms: int) -> list[int]:
    judge = Later()
    listening = Listening(RATE_HZ, ServerVad(silence_duration_ms=silence_ms))
    return stops(listening, judge, heard(turn, "clean"))


def test_who_is_cut_off_in_a_pause_is_told_from_who_is_heard_out() -> None:
    paused, whole = said(700), said()
    assert paused.end - whole.end == 0.7 * RATE_HZ
    for silence_ms, cut in ((500, 1.0), (900, 0.0)):
        found = row("", [(each, ends_of(each, silence_ms)) for each in (paused, whole)])
        assert found["cut_share"] == cut
        assert found["mean_ms"] == pytest.approx(silence_ms, abs=60)


def test_a_turn_whose_end_nobody_notices_waits_to_the_end_of_its_sound() -> None:
    paused = said(700)
    assert row("", [(paused, [])])["p50_ms"] == 1000 * AFTER_S
    assert len(heard(paused, "clean")) == 2 * len(paused.sound)
    assert paused.end == round((BEFORE_S + 1.7) * RATE_HZ)


def test_answers_come_after_a_while_and_the_same_question_is_answered_once() -> None:
    asked: list[int] = []

    def model(sound: Samples) -> float:
        asked.append(len(sound))
        return 0.5

    judge, told = Later(model), list[float | None]()
    for _ in range(2):
        judge.ended(bytes(640), RATE_HZ, told.append)
    assert (judge.asked, asked) == (2, [320])
    for _ in range(ANSWER_MS // 20 - 1):
        judge.tick()
    assert told == []
    judge.tick()
    assert told == [0.5, 0.5]


def test_ways_are_compared_where_as_many_are_cut_off() -> None:
    rows = [
        {"detector": f"server_vad {ms} ms", "cut_share": share, "mean_ms": ms} for ms, share in ((400, 0.8), (800, 0.4))
    ]
    assert same_cut_ms(rows, 0.6, "server_vad") == pytest.approx(600)
    assert same_cut_ms(rows, 0.9, "server_vad") is None
    assert same_cut_ms(rows, 0.6, "other") is None


def test_a_part_that_is_measured_again_takes_the_place_of_its_rows_and_no_others() -> None:
    def rows(*names: str) -> list[dict[str, str]]:
        return [dict(zip(("noise", "vad", "detector"), name.split(), strict=True)) for name in names]

    before = rows("clean webrtc a", "clean webrtc b", "clean silero a", "pink webrtc a")
    new = rows("typing webrtc a", "clean silero b")
    expected = rows("clean webrtc a", "clean webrtc b", "clean silero b", "pink webrtc a", "typing webrtc a")
    assert joined(before, new) == expected
    assert joined([], new) == rows("clean silero b", "typing webrtc a")
    assert joined(before, before) == before
