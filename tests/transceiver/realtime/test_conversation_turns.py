"""A Realtime conversation's turns: what the caller says is found, committed, answered and kept."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from realtime_run import NO_TURNS, QUIET, Partner, Scene, loud, turn_detection


def test_a_turn_is_committed_and_answered() -> None:
    scene = Scene()
    scene.hear(400, QUIET)
    scene.turn()
    assert scene.types() == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "rate_limits.updated",
    ]
    assert scene.partner.told == ["started", "stopped", "committed", "respond"]
    # 300 ms from before it was noticed, 600 of speech, 500 of silence; the detector holds on for a frame or two.
    assert 1300 <= len(scene.partner.items[0].pcm) / 48 <= 1500


@pytest.mark.parametrize("create", [True, False])
def test_whether_a_turn_is_answered_is_the_clients_choice(create: bool) -> None:
    scene = Scene(session=turn_detection(type="server_vad", create_response=create))
    scene.turn()
    assert ("response.created" in scene.types()) is create


@pytest.mark.parametrize("silence_ms", [200, 500, 1200])
def test_silence_of_the_length_asked_for_ends_a_turn(silence_ms: int) -> None:
    scene = Scene(session=turn_detection(type="server_vad", silence_duration_ms=silence_ms))
    scene.hear(600)
    scene.take()
    waited = 0
    while "input_audio_buffer.speech_stopped" not in scene.types():
        scene.hear(20, QUIET)
        waited += 20
        assert waited < 3000
    assert silence_ms - 40 <= waited <= silence_ms + 200


@pytest.mark.parametrize("padding_ms", [0, 300, 1000])
def test_padding_of_the_length_asked_for_is_part_of_a_turn(padding_ms: int) -> None:
    scene = Scene(session=turn_detection(type="server_vad", prefix_padding_ms=padding_ms))
    scene.hear(3000, QUIET)
    scene.hear(200)
    event = scene.take()[0]
    assert event["type"] == "input_audio_buffer.speech_started"
    assert 3000 - padding_ms - 100 <= event["audio_start_ms"] <= 3000 - padding_ms + 60


def test_without_turn_detection_the_client_commits() -> None:
    scene = Scene(session=NO_TURNS)
    scene.turn()
    assert scene.take() == []
    scene.says("input_audio_buffer.commit")
    assert scene.types() == ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    assert len(scene.partner.items[0].pcm) == 1300 * 48
    scene.says("input_audio_buffer.commit")
    assert scene.error()["code"] == "input_audio_buffer_commit_empty"


def test_a_commit_in_the_middle_of_a_turn_makes_two() -> None:
    scene = Scene()
    scene.hear(600)
    scene.says("input_audio_buffer.commit")
    scene.turn()
    committed = [event["item_id"] for event in scene.take() if event["type"] == "input_audio_buffer.committed"]
    assert len(set(committed)) == 2
    assert all(committed)


@pytest.mark.parametrize("format_", ["audio/pcm", "audio/pcmu", "audio/pcma"])
def test_audio_in_events_is_heard_in_every_format(format_: str) -> None:
    audio = {"input": {"turn_detection": None, "format": {"type": format_}}, "output": {"format": {"type": format_}}}
    scene = Scene(media=False, session={"audio": audio})
    second = bytes(48000 if format_ == "audio/pcm" else 8000)
    for at in range(0, len(second), 1111):
        scene.says("input_audio_buffer.append", audio=base64.b64encode(second[at : at + 1111]).decode())
        scene.wait(20)
    scene.says("input_audio_buffer.commit")
    assert len(scene.partner.items[0].pcm) == 48000
    scene.says("response.create")
    scene.partner.makings[0].audio(bytes(48000))
    deltas = [e["delta"] for e in scene.take() if e["type"] == "response.output_audio.delta"]
    assert sum(len(base64.b64decode(delta)) for delta in deltas) == len(second)


def test_turns_are_found_in_events_too_and_a_long_piece_stalls_nobody() -> None:
    scene = Scene(media=False)
    pcm = b"".join([*[loud(i) for i in range(100)], *[QUIET] * 400])
    scene.says("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())
    scene.says("input_audio_buffer.clear")
    assert scene.partner.heard_ms <= 1000
    scene.wait(400)
    types = scene.types()
    assert types.index("response.created") < types.index("input_audio_buffer.cleared")


@pytest.mark.parametrize("vad", [True, False])
@pytest.mark.parametrize(
    "between",
    [
        ("input_audio_buffer.clear", {}),
        ("input_audio_buffer.commit", {}),
        ("session.update", {"session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}}),
    ],
)
def test_half_a_sample_leaves_nothing_behind(between: tuple[str, dict[str, Any]], vad: bool) -> None:
    scene = Scene(media=False, session=None if vad else NO_TURNS)
    speech = b"".join(loud(i) for i in range(50))
    scene.says("input_audio_buffer.append", audio=base64.b64encode(bytes(19_201)).decode())
    scene.says(between[0], **between[1])
    scene.says(
        "session.update", session={"audio": {"input": {"format": {"type": "audio/pcm"}, **NO_TURNS["audio"]["input"]}}}
    )
    if between[0] != "input_audio_buffer.clear":
        scene.says("input_audio_buffer.commit")
    scene.partner.items.clear()
    scene.says("input_audio_buffer.append", audio=base64.b64encode(speech).decode())
    scene.says("input_audio_buffer.commit")
    scene.wait(2000)
    assert scene.partner.items[-1].pcm == speech


def test_audio_goes_on_where_turn_detection_changes_in_the_middle_of_it() -> None:
    scene = Scene(media=False, session=NO_TURNS)
    speech = b"".join(loud(i) for i in range(60))
    for at in range(0, len(speech), 1000):
        scene.says("input_audio_buffer.append", audio=base64.b64encode(speech[at : at + 1000]).decode())
        if at in (10_000, 30_000):
            turns = {"type": "server_vad", "prefix_padding_ms": 5000} if at == 10_000 else None
            scene.says("session.update", session={"audio": {"input": {"turn_detection": turns}}})
        scene.wait(40)
    scene.says("input_audio_buffer.commit")
    assert b"".join(item.pcm for item in scene.partner.items) == speech


def test_what_is_not_base64_is_refused() -> None:
    scene = Scene(media=False)
    scene.says("input_audio_buffer.append", audio="*")
    assert scene.error()["param"] == "audio"


@pytest.mark.parametrize("eagerness", ["low", "medium", "high", "auto"])
def test_semantic_turns_end_sooner_where_the_voice_falls(eagerness: str) -> None:
    longest = {"low": 8000, "medium": 4000, "high": 2000, "auto": 4000}[eagerness]

    def wait_ms(gains: np.ndarray[Any, Any]) -> int:
        scene = Scene(session=turn_detection(type="semantic_vad", eagerness=eagerness))
        for i, gain in enumerate(gains):
            scene.hear(20, (np.frombuffer(loud(i), np.int16) * gain).astype(np.int16).tobytes())
        scene.take()
        for waited in range(0, 10_000, 20):
            scene.hear(20, QUIET)
            if "input_audio_buffer.speech_stopped" in scene.types():
                return waited
        raise AssertionError("the turn never ended")

    falling, rising = wait_ms(np.linspace(1, 0.2, 100)), wait_ms(np.linspace(0.05, 1, 100))
    assert falling <= 1100
    assert falling < rising <= longest + 100


def test_the_newest_turn_is_kept_whole_and_of_older_ones_ten_seconds() -> None:
    scene = Scene()
    for _ in range(12):
        scene.turn()
        if scene.partner.makings:
            scene.partner.makings[-1].done()
    kept_s = [len(item.pcm) / 48000 for item in scene.partner.items]
    assert kept_s[-1] > 1
    assert 8 < sum(kept_s[:-1]) <= 10
    assert kept_s[0] == 0


def test_who_wants_no_turns_costs_no_memory_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Partner, "wants_turns", False)
    scene = Scene()
    scene.hear(5000)
    scene.hear(1000, QUIET)
    assert "input_audio_buffer.committed" in scene.types()
    assert len(scene.partner.items[0].pcm) / 48 <= 400  # ms
