"""Turns whose end a judge is asked about (``semantic_vad`` where its model is installed), on a clock that only tests
move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from realtime_run import QUIET, RATE_HZ, Scene, loud, seconds, turn_detection

from transceiver.realtime.config import Config
from transceiver.realtime.conversation import Conversation

Tell = Callable[[float | None], None]


class Judged(Scene):
    """A conversation whose judge writes down what it is asked. It answers ``says``, or nothing where that is empty."""

    def __init__(self, says: list[float | None], eagerness: str = "auto") -> None:
        super().__init__()
        self.answers = says
        self.asked: list[bytes] = []
        self.tells: list[Tell] = []
        config = Config("rtc_1", "test", "smart_turn")
        config.update(turn_detection(type="semantic_vad", eagerness=eagerness))
        self.conversation = Conversation(config, self.partner, self, rate_hz=RATE_HZ, media=True, judge=self)
        self.conversation.begin()

    def ended(self, pcm: bytes, rate_hz: int, tell: Tell) -> None:
        assert rate_hz == RATE_HZ
        self.asked.append(pcm)
        self.tells.append(tell)
        for says in self.answers:
            tell(says)

    def words(self, pcm: bytes, rate_hz: int, tell: Callable[[str | None], None]) -> None:
        tell(None)

    def waited(self, most_ms: int = 10_000) -> int:
        """How long the caller is silent until the turn ends."""
        for ms in range(0, most_ms, 20):
            self.hear(20, QUIET)
            if "input_audio_buffer.speech_stopped" in self.types():
                return ms + 20
        return most_ms


@pytest.mark.parametrize(
    ("eagerness", "soon", "later", "late"),
    [("high", 240, 800, 2000), ("auto", 300, 1200, 4000), ("low", 400, 1500, 8000)],
)
def test_a_turn_ends_soon_where_the_judge_says_so_and_late_where_not(
    eagerness: str, soon: int, later: int, late: int
) -> None:
    for probability, expected in ((0.99, soon), (0.2, later), (0.01, late)):
        scene = Judged([probability], eagerness)
        scene.hear(1000)
        assert scene.waited() == pytest.approx(expected, abs=60)
        assert len(scene.asked) == 1, "once a pause"


def test_the_judge_hears_the_turn_so_far_with_a_little_silence_and_of_a_long_one_the_last_seconds() -> None:
    scene = Judged([0.99])
    scene.hear(1000)
    scene.waited()
    assert loud(30) in scene.asked[0]
    assert scene.asked[0].endswith(QUIET * 7)
    scene.hear(20_000)
    scene.waited()
    assert len(scene.asked[1]) == 8 * 2 * RATE_HZ


def test_each_pause_is_asked_about_anew_and_an_answer_to_an_old_one_is_not_heard() -> None:
    scene = Judged([])
    scene.hear(1000)
    scene.hear(300, QUIET)
    scene.hear(600)
    scene.hear(300, QUIET)
    assert len(scene.asked) == 2
    scene.tells[0](0.99)
    scene.tells[1](0.01)
    assert scene.waited() > 3000
    assert scene.partner.told.count("committed") == 1


@pytest.mark.parametrize(("says", "expected"), [([None], 500), ([], 700)])
def test_without_an_answer_silence_ends_the_turn(says: list[float | None], expected: int) -> None:
    scene = Judged(says)
    scene.hear(1000)
    assert scene.waited() == pytest.approx(expected, abs=60)


def test_a_client_is_told_who_judges_and_may_say_back_what_it_was_told() -> None:
    scene = Judged([])
    for _ in range(2):
        scene.says("session.update", session=turn_detection(type="semantic_vad"))
        (event,) = scene.take()[-1:]
        turns = event["session"]["audio"]["input"]["turn_detection"]
        assert (turns["type"], turns["judge"]) == ("semantic_vad", "smart_turn")
    scene.says("session.update", session={"audio": {"input": {"turn_detection": {**turns, "judge": "me"}}}})
    assert scene.take()[-1]["session"]["audio"]["input"]["turn_detection"] == turns
    plain = Scene()
    plain.says("session.update", session={"audio": {"input": {"turn_detection": turns}}})
    assert plain.take()[-1]["session"]["audio"]["input"]["turn_detection"]["judge"] == "loudness"


@pytest.mark.parametrize(("spoken_ms", "interrupts"), [(300, False), (600, True)])
def test_by_semantic_turns_a_short_sound_takes_no_turn(spoken_ms: int, interrupts: bool) -> None:
    scene = Judged([0.99])
    scene.says("response.create")
    making: Any = scene.partner.makings[-1]
    making.audio(seconds(10))
    scene.hear(1000, QUIET)
    scene.partner.told.clear()
    scene.hear(spoken_ms)
    scene.hear(1000, QUIET)
    assert (making.status == "cancelled") is interrupts
    assert ("committed" in scene.partner.told) is interrupts
