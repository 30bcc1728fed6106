"""A Realtime conversation from both ends: its session, events that nobody knows, and every event in every order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from realtime_run import Scene, every_client_event, turn_detection

from transceiver.realtime.config import InvalidRequest

VAD = "session.audio.input.turn_detection"


# --- the session ---


def test_an_update_is_answered_with_all_that_holds_now() -> None:
    scene = Scene()
    scene.says("session.update", session={"type": "realtime", "instructions": "be kind"})
    scene.says("session.update", session=turn_detection(type="server_vad", threshold=0.7))
    first, second = scene.take()
    assert first["type"] == second["type"] == "session.updated"
    assert second["session"]["instructions"] == "be kind"
    vad = second["session"]["audio"]["input"]["turn_detection"]
    assert (vad["threshold"], vad["silence_duration_ms"]) == (0.7, 500)
    assert second["session"]["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert second["session"]["model"] == "test"


def test_the_agent_is_told_what_the_session_asks_for() -> None:
    scene = Scene()
    scene.conversation.client_event(json.dumps(every_client_event()[0]), scene.now)
    settings = scene.partner.settings
    assert (settings.instructions, settings.modality, settings.voice) == ("be kind", "audio", "marin")
    assert settings.tools[0]["name"] == "f"
    assert settings.more["audio"]["output"]["speed"] == 1.25


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"colour": "red"}, "unknown_parameter", "session.colour"),
        ({"audio": {"input": {"loudness": 1}}}, "unknown_parameter", "session.audio.input.loudness"),
        (turn_detection(type="server_vad", foo=1), "unknown_parameter", VAD + ".foo"),
        (turn_detection(type="magic"), "invalid_value", VAD),
        (turn_detection(type="server_vad", threshold=2.0), "invalid_value", VAD + ".threshold"),
        ({"instructions": 5}, "invalid_type", "session.instructions"),
        ({"output_modalities": ["smell"]}, "invalid_value", "session.output_modalities[0]"),
        ({"audio": {"output": {"speed": 9.0}}}, "invalid_value", "session.audio.output.speed"),
        ({"max_output_tokens": 0}, "invalid_value", "session.max_output_tokens"),
        ({"type": "transcription"}, "invalid_value", "session.type"),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "mcp"}]}, "invalid_value", "session.tools[1].type"),
        ({"tools": [{"type": "web_search"}]}, "invalid_value", "session.tools[0].type"),
        ({"tools": [{"name": 5}]}, "invalid_type", "session.tools[0].name"),
        ({"tools": [{"name": "f", "parameters": "none"}]}, "invalid_type", "session.tools[0].parameters"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "invalid_value", "session.tool_choice"),
        ({"instructions": "x" * (17 << 10)}, "string_above_max_length", "session.instructions"),
        ({"instructions": "é" * (9 << 10)}, "string_above_max_length", "session.instructions"),
        ({"tools": [{"name": "f", "description": "x" * (65 << 10)}]}, "invalid_value", "session.tools"),
        ({"tools": [{"name": "f"}] * 257}, "invalid_value", "session.tools"),
        ({"prompt": {"id": "x" * (17 << 10)}}, "invalid_value", "session"),
        ({"tracing": "x" * (17 << 10)}, "invalid_value", "session"),
        ({"audio": {"output": {"voice": "x" * (17 << 10)}}}, "invalid_value", "session"),
    ],
)  # fmt: skip
def test_what_a_session_cannot_be_is_refused_and_changes_nothing(session: Any, code: str, param: str) -> None:
    scene = Scene()
    before = scene.conversation.created
    scene.says("session.update", event_id="mine", session={"instructions": "y", **session})
    error = scene.error()
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert error["event_id"] == "mine"
    assert scene.conversation.created == before


def test_what_a_session_is_configured_with_is_bounded_however_it_comes() -> None:
    scene = Scene()
    for name in ("prompt", "reasoning", "tracing", "truncation"):
        scene.says("session.update", session={name: {"x": "x" * (5 << 10)}})
    assert scene.types() == ["session.updated"] * 3 + ["error"]
    scene.says("session.update", session={"instructions": "x" * (16 << 10)})
    scene.says("session.update", session={"tools": [{"name": "f", "description": "x" * (63 << 10)}]})
    scene.wait(200)
    assert scene.types() == ["session.updated"] * 2
    assert len(json.dumps(scene.conversation.created)) < 100 << 10


def test_an_update_copies_nothing_of_what_was_there() -> None:
    scene = Scene(session={"tools": [{"name": "f", "description": "x" * 1000, "parameters": {"a": [1]}}]})
    before = scene.partner.settings
    scene.says("session.update", session={"instructions": "sing"})
    assert scene.partner.settings.tools[0] is before.tools[0]
    assert (before.instructions, scene.partner.settings.instructions) == ("", "sing")
    scene.says("response.create", response={"instructions": "rhyme"})
    assert scene.partner.makings[0].settings.tools[0] is before.tools[0]


def test_what_the_maker_of_the_key_locked_its_holder_neither_changes_nor_sees() -> None:
    scene = Scene(
        session={"instructions": "the price is 5", "tools": [{"name": "f"}]}, locked=["instructions", "tools"]
    )
    assert scene.partner.settings.instructions == "the price is 5"
    created = scene.conversation.created["session"]
    assert (created["instructions"], created["tools"]) == ("", [])
    for name, value in (("instructions", "the price is 1"), ("tools", [])):
        scene.says("session.update", event_id="mine", session={"output_modalities": ["text"], name: value})
        error = scene.error()
        assert (error["code"], error["param"], error["event_id"]) == ("locked", f"session.{name}", "mine")
        scene.says("response.create", response={name: value})
        assert scene.error()["param"] == f"response.{name}"
    scene.says("session.update", session={"output_modalities": ["text"]})
    (updated,) = scene.take()
    assert (updated["session"]["instructions"], updated["session"]["output_modalities"]) == ("", ["text"])
    scene.says("response.create")
    assert scene.partner.makings[0].settings.instructions == "the price is 5"
    scene.partner.makings[0].done()
    assert not any("price" in json.dumps(event) for event in scene.take())


def test_what_no_session_has_cannot_be_locked() -> None:
    with pytest.raises(InvalidRequest, match="instruction'"):
        Scene(locked=["instruction"])


@pytest.mark.parametrize("text", ["", "{", "[]", '"type"', "{}", '{"type": 1}', b"\xff\xfe", "[" * 60000])
def test_what_is_no_event_is_refused(text: str | bytes) -> None:
    scene = Scene()
    scene.conversation.client_event(text, scene.now)
    assert scene.error()["code"] == "invalid_event"


def test_an_event_that_nobody_knows_is_refused_or_the_agents() -> None:
    scene = Scene()
    scene.says("dance", event_id="e")
    assert (scene.error()["param"], scene.partner.told) == ("type", [])
    scene.partner.listens = True
    scene.says("dance")
    assert scene.partner.told == [{"type": "dance"}]


def test_missing_fields_are_named() -> None:
    scene = Scene()
    scene.says("conversation.item.retrieve")
    error = scene.error()
    assert (error["code"], error["param"]) == ("missing_required_parameter", "item_id")


def test_a_flood_of_events_is_bounded_and_said_once() -> None:
    scene = Scene()
    for _ in range(5000):
        scene.says("input_audio_buffer.clear", event_id="mine")
    (error,) = [event["error"] for event in scene.take() if event["type"] == "error"]
    assert error["event_id"] == "mine"
    scene.wait(1000)
    assert 200 < scene.types().count("input_audio_buffer.cleared") <= 256


# --- all of it ---


@pytest.mark.parametrize("media", [True, False])
def test_every_event_in_every_order_is_answered_and_raises_nothing(media: bool) -> None:
    events = every_client_event()
    for shift in range(len(events)):
        scene = Scene(media=media)
        for event in [*events[shift:], *events[:shift]]:
            scene.conversation.client_event(json.dumps(event), scene.now)
            scene.hear(40)
        assert scene.take()
        scene.conversation.close()


def test_who_asks_is_told_how_media_came_and_went() -> None:
    scene = Scene()
    scene.says("firsthop.media.retrieve")
    (told,) = scene.take()
    assert (told["type"], told["heard"]) == ("firsthop.media", {"heard": 0})
    scene = Scene(media=False)
    scene.says("firsthop.media.retrieve", event_id="mine")
    assert scene.error()["event_id"] == "mine"
