"""Interruptions of a Realtime conversation: by the caller's voice, and by the client's word."""

from __future__ import annotations

from typing import Any

from realtime_run import NO_TURNS, QUIET, Scene, seconds, turn_detection


def speaking(scene: Scene, *, done: bool = False) -> Any:
    """A response of ten seconds, of which one was played."""
    scene.says("response.create")
    making = scene.partner.makings[-1]
    making.transcript("one two three four five six seven eight nine ten")
    making.audio(seconds(10))
    if done:
        making.done()
    scene.hear(1000, QUIET)
    scene.take()
    scene.partner.told.clear()
    return making


def test_the_caller_interrupts_at_the_first_frame_of_speech() -> None:
    scene = Scene()
    making = speaking(scene)
    while not scene.events:
        scene.hear(20)
    played = len(scene.played)
    events = scene.take()
    assert [event["type"] for event in events] == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert events[2]["audio_end_ms"] == 20 * played
    response = events[-1]["response"]
    assert (response["status"], response["status_details"]["reason"]) == ("cancelled", "turn_detected")
    assert response["output"][0]["status"] == "incomplete"
    assert response["output"][0]["content"][0]["transcript"] == "one"
    assert scene.partner.told == ["started", ("cancelled", making.id)]
    making.audio(seconds(1))
    scene.hear(200)
    assert len(scene.played) == played


def test_what_was_made_and_is_still_heard_is_interrupted_too() -> None:
    scene = Scene()
    making = speaking(scene, done=True)
    scene.hear(200)
    assert scene.types() == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
    ]
    assert ("cancelled", making.id) in scene.partner.told


def test_an_agent_that_still_thinks_is_interrupted() -> None:
    scene = Scene()
    scene.says("response.create")
    scene.take()
    scene.hear(200)
    assert scene.types() == ["input_audio_buffer.speech_started", "response.done"]


def test_who_asks_for_no_interruptions_hears_the_answer_to_its_end_and_then_the_next() -> None:
    scene = Scene(session=turn_detection(type="server_vad", interrupt_response=False))
    making = speaking(scene)
    scene.turn()
    types = scene.types()
    assert "input_audio_buffer.committed" in types
    assert "response.created" not in types
    making.done()
    assert scene.types()[-2:] == ["response.created", "rate_limits.updated"]


def test_a_cough_is_no_turn_for_an_agent_that_is_patient() -> None:
    scene = Scene()
    scene.partner.yields_after_ms = 300
    speaking(scene)
    scene.hear(120)
    scene.hear(800, QUIET)
    assert scene.types() == ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"]
    assert scene.partner.items == []
    scene.hear(220)
    assert scene.types() == ["input_audio_buffer.speech_started"]
    scene.hear(200)
    assert scene.types()[:2] == ["output_audio_buffer.cleared", "conversation.item.truncated"]


def test_turn_detection_that_is_switched_off_interrupts_no_more() -> None:
    scene = Scene()
    scene.partner.yields_after_ms = 300
    speaking(scene)
    scene.hear(100)
    scene.says("session.update", session=NO_TURNS)
    scene.hear(1000)
    # What has begun has its end, and what was said can still be committed.
    assert scene.types() == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "session.updated",
    ]
    assert scene.partner.told[-1] == "stopped"
    scene.says("input_audio_buffer.commit")
    assert scene.types()[0] == "input_audio_buffer.committed"


def test_without_media_the_client_truncates() -> None:
    scene = Scene(media=False)
    scene.says("response.create")
    making = scene.partner.makings[0]
    making.transcript("one two three four")
    making.audio(seconds(4))
    making.done()
    item = scene.take()[-1]["response"]["output"][0]["id"]
    scene.says("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=4001)
    assert scene.error()["param"] == "audio_end_ms"
    scene.says("conversation.item.truncate", item_id=item, content_index=1, audio_end_ms=1)
    assert scene.error()["param"] == "content_index"
    scene.says("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=2100)
    assert scene.take()[0]["audio_end_ms"] == 2100
    scene.says("response.create")
    assert scene.partner.makings[1].items[0].text == "one two"
    scene.take()
    scene.says("output_audio_buffer.clear")
    assert scene.error()["param"] == "type"


def test_a_client_may_truncate_at_the_end_of_a_begun_millisecond() -> None:
    scene = Scene(media=False)
    scene.says("response.create")
    making = scene.partner.makings[0]
    making.audio(seconds(1) + bytes(2))
    making.done()
    item = scene.take()[-1]["response"]["output"][0]["id"]
    scene.says("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=1001)
    assert scene.take()[0]["type"] == "conversation.item.truncated"


def test_a_caller_who_says_nothing_is_spoken_to() -> None:
    scene = Scene(session=turn_detection(type="server_vad", idle_timeout_ms=5000))
    scene.hear(8000, QUIET)
    assert scene.take() == []  # nobody has said anything yet
    speaking(scene, done=True)
    scene.hear(9040, QUIET)
    scene.take()
    scene.hear(4800, QUIET)
    assert scene.take() == []
    scene.hear(400, QUIET)
    events = scene.take()
    assert [event["type"] for event in events][:2] == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
    ]
    assert 4900 <= events[0]["audio_end_ms"] - events[0]["audio_start_ms"] <= 5100
    assert events[0]["item_id"] == events[1]["item_id"]
    assert "response.created" in [event["type"] for event in events]


def test_a_pressed_key_is_told_and_interrupts_nothing() -> None:
    scene = Scene()
    scene.conversation.pressed("#", 1_700_000_000)
    [event] = scene.events
    assert event.pop("event_id")
    assert event == {"type": "input_audio_buffer.dtmf_event_received", "event": "#", "received_at": 1_700_000_000}
    assert scene.partner.told == [("dtmf", "#")]
