"""Voice activity made into turns, on a generated voice and on what is no voice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from turning import FRAME_BYTES, edges, frames

from caller.voice import Voice, generated
from rtc.vad.detector import Detector
from rtc.vad.silero import SileroDetector
from rtc.vad.webrtc import WebrtcDetector

Kind = Callable[..., Detector]


@pytest.fixture(scope="module")
def voice() -> Voice:
    """Two phrases of two seconds, each with a second and a half of pause after it."""
    return generated(7.0, seed=3)


def noise(level: float, seconds: float = 10.0) -> bytes:
    samples = np.random.default_rng(5).normal(0.0, level, round(24000 * seconds))
    return np.clip(samples, -32768, 32767).astype(np.int16).tobytes()


@pytest.fixture(params=[WebrtcDetector, SileroDetector], ids=["webrtc", "silero"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Either detector: what a turn is they agree on."""
    made: Kind = request.param
    return made


@pytest.mark.parametrize("seed", [1, 3, 7])
def test_each_phrase_starts_and_stops_once(kind: Kind, seed: int) -> None:
    assert [edge for _, edge in edges(kind(), generated(7.0, seed=seed).pcm(24000))] == ["started", "stopped"] * 2


def test_a_turn_starts_within_200_ms_and_stops_half_a_second_after_the_phrase(kind: Kind, voice: Voice) -> None:
    turns = kind()
    found = edges(turns, voice.pcm(24000))
    spoken = [i for i, speech in enumerate(voice.speech) if speech]
    first, last = spoken[0], max(i for i in spoken if i < 150)
    assert first <= found[0][0] <= first + 10
    assert last + 20 <= found[1][0] <= last + 25 + 20
    assert not turns.speaking


def test_patience_is_what_was_asked_for(kind: Kind, voice: Voice) -> None:
    short = edges(kind(silence_ms=200), voice.pcm(24000))
    long = edges(kind(silence_ms=800), voice.pcm(24000))
    assert [edge for _, edge in long] == ["started", "stopped"] * 2
    assert short[0] == long[0]
    assert long[1][0] - next(i for i, edge in short if edge == "stopped") >= 20


def test_a_pause_within_patience_does_not_end_the_turn(kind: Kind, voice: Voice) -> None:
    phrase = frames(voice.pcm(24000))[:90]
    turns = kind()
    pcm = b"".join([*phrase, *[bytes(FRAME_BYTES)] * 15, *phrase, *[bytes(FRAME_BYTES)] * 60])
    assert [edge for _, edge in edges(turns, pcm)] == ["started", "stopped"]


def test_speaking_is_true_from_the_start_to_the_stop(kind: Kind, voice: Voice) -> None:
    turns = kind()
    speaking = False
    for frame in frames(voice.pcm(24000)):
        edge = turns.push(frame)
        speaking = {"started": True, "stopped": False}.get(edge, speaking)
        assert turns.speaking is speaking


@pytest.mark.parametrize("level", [0.0, 1.0, 5.0, 20.0])
def test_silence_and_quiet_noise_never_start_a_turn(kind: Kind, level: float) -> None:
    assert edges(kind(), noise(level)) == []


def test_the_loudest_of_samples_overflow_nothing(kind: Kind) -> None:
    loud = np.tile(np.repeat(np.array([32767, -32768], np.int16), 40), 300).tobytes()
    kind().push(loud[:FRAME_BYTES])
    edges(kind(), loud)


def test_a_single_click_starts_no_turn(kind: Kind) -> None:
    click = np.zeros(24000, np.int16)
    click[12000:12010] = 30000
    assert edges(kind(), click.tobytes()) == []
