"""The caller's voice: generated speech that a detector takes for speech, and recordings."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import webrtcvad

from caller.voice import Voice, VoiceError, generated, recorded


def test_generated_voice_is_speech_to_a_detector_and_its_pauses_are_not(voice: Voice) -> None:
    pcm = voice.pcm(8000)
    detector = webrtcvad.Vad(2)
    heard = np.array([detector.is_speech(pcm[i : i + 320], 8000) for i in range(0, len(pcm), 320)])
    speech = np.array(voice.speech)
    # The detector holds on for some frames after speech: a pause is judged from 300 ms into it.
    pause = ~np.convolve(speech, np.ones(16))[: len(speech)].astype(bool)
    assert heard[speech].mean() > 0.95
    assert pause.sum() > 50
    assert heard[pause].mean() < 0.02


def test_generated_voice_takes_turns_of_two_seconds(voice: Voice) -> None:
    assert voice.seconds == 7.0
    ends = sorted(voice.turn_ends)
    assert len(ends) == 2
    assert 85 <= ends[0] <= 100
    assert 260 <= ends[1] <= 275


def test_no_two_frames_of_a_voice_have_the_same_payload(voice: Voice) -> None:
    assert len(set(voice.frames)) == len(voice.frames) == len(voice.frame_of)
    assert all(voice.frames[i] == payload for payload, i in voice.frame_of.items())


def test_the_same_seed_gives_the_same_voice() -> None:
    assert generated(1.0, seed=5).frames == generated(1.0, seed=5).frames != generated(1.0, seed=6).frames


def _write_wave(path: Path, seconds: float) -> None:
    samples = (8000 * np.sin(2 * np.pi * 300 * np.arange(round(16000 * seconds)) / 16000)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.repeat(samples, 2).tobytes())


def test_a_recording_is_resampled_and_ends_with_a_pause(tmp_path: Path) -> None:
    _write_wave(tmp_path / "tone.wav", 1.0)
    voice = recorded(tmp_path / "tone.wav")
    assert 2.48 <= voice.seconds <= 2.54
    assert len(voice.turn_ends) == 1
    assert len(set(voice.frames)) == len(voice.frames)
    loudness = np.abs(np.frombuffer(voice.pcm(48000), "<i2").astype(float))
    assert loudness[9600:38400].mean() > 4000
    assert loudness[-48000:].mean() < 20


def test_what_is_no_recording_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(VoiceError, match=r"text\.wav: not a readable audio file"):
        recorded(tmp_path / "text.wav")
    _write_wave(tmp_path / "short.wav", 0.005)
    with pytest.raises(VoiceError, match="less than 20 ms"):
        recorded(tmp_path / "short.wav")
