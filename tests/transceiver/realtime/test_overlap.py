"""Voices over an agent that speaks, whose words somebody knows (``semantic_vad`` where the ears are installed), on a
clock that only tests move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from realtime_run import QUIET, RATE_HZ, Scene, seconds, turn_detection

from transceiver.realtime.config import Config
from transceiver.realtime.conversation import Conversation
from transceiver.realtime.overlap import backchannel

Tell = Callable[[str | None], None]


class Spoken(Scene):
    """A conversation whose agent speaks for ``speech_s``, and whose judge has been asked for words that the test
    tells."""

    def __init__(self, speech_s: float = 20, **turns: Any) -> None:
        super().__init__()
        self.asked: list[bytes] = []
        self.tells: list[Tell] = []
        config = Config("rtc_1", "test", "smart_turn")
        config.update(turn_detection(**(turns or {"type": "semantic_vad"})))
        self.conversation = Conversation(config, self.partner, self, rate_hz=RATE_HZ, media=True, judge=self)
        self.conversation.begin()
        self.says("response.create")
        self.making: Any = self.partner.makings[-1]
        self.making.audio(seconds(speech_s))
        self.making.done()
        self.hear(1000, QUIET)
        self.take()
        self.partner.told.clear()
        self.played.clear()

    def ended(self, pcm: bytes, rate_hz: int, tell: Callable[[float | None], None]) -> None:
        tell(0.99)

    def words(self, pcm: bytes, rate_hz: int, tell: Tell) -> None:
        assert rate_hz == RATE_HZ
        self.asked.append(pcm)
        self.tells.append(tell)

    def hear_until_asked(self, most_ms: int = 1000) -> int:
        """How long the caller speaks until somebody is asked for the words."""
        asked = len(self.asked)
        for ms in range(20, most_ms + 20, 20):
            self.hear(20)
            if len(self.asked) > asked:
                return ms
        pytest.fail("nobody was asked")

    def heard_in(self, ms: int, frame: bytes | None = None) -> int:
        """How much of the agent's speech, in ms, is heard in so much time of the caller's voice."""
        self.played.clear()
        self.hear(ms, frame)
        return 20 * len(self.played)

    @property
    def interrupted(self) -> bool:
        return "output_audio_buffer.cleared" in self.types()


def test_the_agent_pauses_for_a_voice_and_goes_on_where_that_has_only_agreed() -> None:
    scene = Spoken()
    assert scene.hear_until_asked() == pytest.approx(440, abs=60)
    assert scene.heard_in(100) == 0
    scene.tells[0]("Mm-hmm.")
    assert scene.heard_in(200) == 200
    assert scene.heard_in(2000, QUIET) == 2000
    assert not scene.interrupted
    assert scene.partner.told == ["started", "stopped"], "it was no turn"


def test_a_word_silences_the_agent_at_once_and_for_good() -> None:
    scene = Spoken()
    scene.hear_until_asked()
    scene.tells[0]("No, that is wrong.")
    assert scene.heard_in(400) == 0
    assert scene.interrupted
    scene.hear(1000, QUIET)
    assert "committed" in scene.partner.told


def test_a_short_word_counts_when_the_caller_has_fallen_silent() -> None:
    scene = Spoken()
    scene.hear(240)
    scene.hear(100, QUIET)
    assert scene.asked == []
    scene.hear(80, QUIET)
    assert len(scene.asked) == 1
    assert scene.heard_in(60, QUIET) == 60, "the agent does not pause for what is over"
    scene.tells[0]("Stop.")
    assert scene.heard_in(400, QUIET) == 0
    assert scene.interrupted


def test_a_sound_without_words_leaves_the_agent_the_floor() -> None:
    scene = Spoken()
    scene.hear_until_asked()
    scene.tells[0]("")
    assert scene.heard_in(200) == 200
    assert not scene.interrupted


def test_what_goes_on_is_asked_about_again_and_words_take_the_floor_then() -> None:
    scene = Spoken()
    scene.hear_until_asked()
    scene.tells[0]("Okay,")
    assert scene.hear_until_asked() == pytest.approx(400, abs=60)
    assert len(scene.asked[1]) > len(scene.asked[0])
    scene.tells[1]("Okay, and what does it cost?")
    scene.hear(20)
    assert scene.interrupted


def test_a_voice_that_never_ends_takes_the_floor_after_a_few_questions() -> None:
    scene = Spoken()
    for _ in range(4):
        scene.hear_until_asked()
        scene.tells[-1]("Yeah.")
    assert not scene.interrupted
    scene.hear(600)
    assert scene.interrupted
    assert len(scene.asked) == 4


@pytest.mark.parametrize("told", [True, False])
def test_where_nobody_knows_the_words_any_voice_of_that_length_interrupts(told: bool) -> None:
    scene = Spoken()
    scene.hear_until_asked()
    if told:
        scene.tells[0](None)
        scene.hear(20)
        assert scene.interrupted
    else:
        assert scene.heard_in(300) == 0
        assert not scene.interrupted
        scene.hear(200)
        assert scene.interrupted


def test_an_answer_about_one_voice_is_not_taken_for_another() -> None:
    scene = Spoken(type="semantic_vad", eagerness="high")
    scene.hear_until_asked()
    scene.hear(360, QUIET)  # the turn ends with no answer
    assert "input_audio_buffer.speech_stopped" in scene.types()
    assert scene.heard_in(200, QUIET) == 200
    scene.hear_until_asked()
    scene.tells[0]("No, stop it.")
    scene.hear(20)
    assert not scene.interrupted


def test_a_yes_as_the_agent_finishes_is_a_turn() -> None:
    scene = Spoken(speech_s=1.3)
    scene.hear_until_asked()
    scene.tells[0]("Yes.")
    scene.hear(1000, QUIET)
    assert scene.partner.told[-2:] == ["committed", "respond"]


@pytest.mark.parametrize(
    "turns",
    [{"type": "server_vad"}, {"type": "semantic_vad", "interrupt_response": False}],
    ids=["server_vad", "never"],
)
def test_nobody_is_asked_for_words_where_they_do_not_count(turns: dict[str, Any]) -> None:
    scene = Spoken(**turns)
    scene.hear(1000)
    assert scene.asked == []
    assert scene.interrupted is (turns["type"] == "server_vad")


@pytest.mark.parametrize(
    ("text", "agrees"),
    [
        *((text, True) for text in ("", ".", "Mm-hmm.", "Uh-huh", "Yeah, yeah.", "I see.", "O-okay.", "Thank you.")),
        *(
            (text, False)
            for text in ("No.", "Stop", "Yes, but not today.", "Okay, okay, okay, okay, okay.", "なるほど")
        ),
    ],
)
def test_listeners_who_agree_are_told_from_such_as_want_to_speak(text: str, agrees: bool) -> None:
    assert backchannel(text) is agrees
