"""Turns found with more care, on a generated voice and on what is no voice."""

from __future__ import annotations

import numpy as np
import pytest

from caller.voice import Voice, generated
from transceiver.silero import Turns
from transceiver.turns import FRAME_BYTES, detector, use


@pytest.fixture(scope="module")
def voice() -> Voice:
    """Two phrases of two seconds, each with a second and a half of pause after it."""
    return generated(7.0, seed=3)


def frames(pcm: bytes) -> list[bytes]:
    return [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES)]


def edges(turns: Turns, pcm: bytes) -> list[tuple[int, str]]:
    """(frame, edge) wherever there is one."""
    return [(i, edge) for i, frame in enumerate(frames(pcm)) if (edge := turns.push(frame))]


def noise(level: float, seconds: float = 10.0) -> bytes:
    samples = np.random.default_rng(5).normal(0.0, level, round(24000 * seconds))
    return np.clip(samples, -32768, 32767).astype(np.int16).tobytes()


@pytest.mark.parametrize("seed", [1, 3, 7])
def test_each_phrase_starts_and_stops_once(seed: int) -> None:
    assert [edge for _, edge in edges(Turns(), generated(7.0, seed=seed).pcm(24000))] == ["started", "stopped"] * 2


def test_a_turn_starts_within_200_ms_and_stops_half_a_second_after_the_phrase(voice: Voice) -> None:
    turns = Turns()
    found = edges(turns, voice.pcm(24000))
    spoken = [i for i, speech in enumerate(voice.speech) if speech]
    first, last = spoken[0], max(i for i in spoken if i < 150)
    assert first <= found[0][0] <= first + 10
    assert last + 20 <= found[1][0] <= last + 25 + 20
    assert not turns.speaking


def test_patience_is_what_was_asked_for(voice: Voice) -> None:
    short = edges(Turns(silence_ms=200), voice.pcm(24000))
    long = edges(Turns(silence_ms=800), voice.pcm(24000))
    assert [edge for _, edge in long] == ["started", "stopped"] * 2
    assert short[0] == long[0]
    assert long[1][0] - next(i for i, edge in short if edge == "stopped") >= 20


def test_a_pause_within_patience_does_not_end_the_turn(voice: Voice) -> None:
    phrase = frames(voice.pcm(24000))[:90]
    turns = Turns()
    pcm = b"".join([*phrase, *[bytes(FRAME_BYTES)] * 15, *phrase, *[bytes(FRAME_BYTES)] * 60])
    assert [edge for _, edge in edges(turns, pcm)] == ["started", "stopped"]


def test_speaking_is_true_from_the_start_to_the_stop(voice: Voice) -> None:
    turns = Turns()
    speaking = False
    for frame in frames(voice.pcm(24000)):
        edge = turns.push(frame)
        speaking = {"started": True, "stopped": False}.get(edge, speaking)
        assert turns.speaking is speaking


@pytest.mark.parametrize("level", [0.0, 1.0, 5.0, 20.0])
def test_silence_and_quiet_noise_never_start_a_turn(level: float) -> None:
    assert edges(Turns(), noise(level)) == []


def test_the_loudest_of_samples_overflow_nothing() -> None:
    loud = np.tile(np.repeat(np.array([32767, -32768], np.int16), 40), 300).tobytes()
    Turns().push(loud[:FRAME_BYTES])
    edges(Turns(), loud)


def test_a_single_click_starts_no_turn() -> None:
    click = np.zeros(24000, np.int16)
    click[12000:12010] = 30000
    assert edges(Turns(), click.tobytes()) == []


def frames_at(rate_hz: int, voice: Voice) -> list[bytes]:
    pcm, size = voice.pcm(rate_hz), rate_hz // 50 * 2
    return [pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size)]


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 48000])
def test_any_rate_tells_the_same_turns(rate_hz: int, voice: Voice) -> None:
    turns = Turns(rate_hz)
    assert [edge for frame in frames_at(rate_hz, voice) if (edge := turns.push(frame))] == ["started", "stopped"] * 2


def test_who_has_to_be_surer_starts_fewer_turns(voice: Voice) -> None:
    assert edges(Turns(threshold=1.1), voice.pcm(24000)) == []


def chords(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What WebRTC's detector takes for voice, twenty times a second."""
    at = np.arange(round(24000 * seconds)) / 24000
    tones = sum(np.sin(2 * np.pi * hz * k * at) / k for hz in (131, 165, 196) for k in range(1, 5))
    return np.asarray(1200 * tones)


def test_music_starts_no_turn() -> None:
    assert edges(Turns(), chords(10).astype(np.int16).tobytes()) == []


def test_music_does_not_keep_a_turn_open(voice: Voice) -> None:
    turns = Turns()
    phrase = voice.pcm(24000)[: 90 * FRAME_BYTES]
    found = edges(turns, phrase + chords(4).astype(np.int16).tobytes())
    assert [edge for _, edge in found] == ["started", "stopped"]


def test_the_dear_detector_is_asked_three_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Turns, "_ask", lambda turns: asked.append(setattr(turns, "_asks", turns._asks - 1)) or 0.0)
    random = np.random.default_rng(1)
    bursts = chords(20) * np.repeat(random.uniform(0.2, 3.0, 200), 2400)
    edges(Turns(), np.clip(bursts, -32768, 32767).astype(np.int16).tobytes())
    assert 10 <= len(asked) <= 20 * 3 + 4


def test_it_is_used_where_it_is_configured() -> None:
    try:
        use("silero")
        assert isinstance(detector(24000), Turns)
    finally:
        use("webrtc")
    assert not isinstance(detector(24000), Turns)
