"""Turns found with more care: what WebRTC's detector alone would take for speech."""

from __future__ import annotations

import numpy as np
import pytest
from turning import edges

from caller.voice import Voice, generated
from rtc.frame import frame_bytes
from rtc.vad.detector import detector, load
from rtc.vad.silero import SileroDetector
from transceiver.realtime.config import ServerVad
from transceiver.realtime.listening import Listening


@pytest.fixture(scope="module")
def voice() -> Voice:
    return generated(7.0, seed=3)


def frames_at(rate_hz: int, voice: Voice) -> list[bytes]:
    pcm, size = voice.pcm(rate_hz), frame_bytes(rate_hz)
    return [pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size)]


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 48000])
def test_any_rate_tells_the_same_turns(rate_hz: int, voice: Voice) -> None:
    turns = SileroDetector(rate_hz)
    assert [edge for frame in frames_at(rate_hz, voice) if (edge := turns.push(frame))] == ["started", "stopped"] * 2


def test_who_has_to_be_surer_starts_fewer_turns(voice: Voice) -> None:
    assert edges(SileroDetector(threshold=1.1), voice.pcm(24000)) == []


def chords(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What WebRTC's detector takes for voice, twenty times a second."""
    at = np.arange(round(24000 * seconds)) / 24000
    tones = sum(np.sin(2 * np.pi * hz * k * at) / k for hz in (131, 165, 196) for k in range(1, 5))
    return np.asarray(1200 * tones)


def test_music_starts_no_turn() -> None:
    assert edges(SileroDetector(), chords(10).astype(np.int16).tobytes()) == []


def test_music_does_not_keep_a_turn_open(voice: Voice) -> None:
    turns = SileroDetector()
    phrase = voice.pcm(24000)[: 90 * frame_bytes(24000)]
    found = edges(turns, phrase + chords(4).astype(np.int16).tobytes())
    assert [edge for _, edge in found] == ["started", "stopped"]


def test_the_dear_detector_is_asked_three_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        SileroDetector, "_ask", lambda turns: asked.append(setattr(turns, "_asks", turns._asks - 1)) or 0.0
    )
    random = np.random.default_rng(1)
    bursts = chords(20) * np.repeat(random.uniform(0.2, 3.0, 200), 2400)
    edges(SileroDetector(), np.clip(bursts, -32768, 32767).astype(np.int16).tobytes())
    assert 10 <= len(asked) <= 20 * 3 + 4


def test_it_is_used_where_it_is_configured() -> None:
    load("silero")
    assert isinstance(detector(24000, "silero"), SileroDetector)
    assert not isinstance(detector(24000, "webrtc"), SileroDetector)
    assert isinstance(Listening(24000, ServerVad(), vad="silero")._detector, SileroDetector)
    assert not isinstance(Listening(24000, ServerVad())._detector, SileroDetector)
