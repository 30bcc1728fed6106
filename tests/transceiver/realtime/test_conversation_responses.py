"""A Realtime conversation's responses: written, spoken, called for, cancelled and failed."""

from __future__ import annotations

import base64

import pytest
from realtime_run import MESSAGE, Scene, seconds


def test_a_written_response() -> None:
    scene = Scene(session={"output_modalities": ["text"]})
    scene.says("response.create")
    making = scene.partner.makings[0]
    making.text("good ")
    making.text("day")
    making.audio(seconds(1))
    making.done({"total_tokens": 3, "input_tokens": 1, "output_tokens": 2})
    events = scene.take()
    assert [event["type"] for event in events] == [
        "response.created",
        "rate_limits.updated",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    done = events[-1]["response"]
    assert (done["status"], done["usage"]["total_tokens"], done["output_modalities"]) == ("completed", 3, ["text"])
    assert done["output"][0]["content"] == [{"type": "output_text", "text": "good day"}]


def test_a_spoken_response_over_media_is_played_in_time() -> None:
    scene = Scene()
    scene.says("response.create")
    making = scene.partner.makings[0]
    making.audio(seconds(0.1)[:-3])
    making.transcript("a word")
    making.done()
    assert "response.output_audio.delta" not in (types := scene.types())
    assert types[-6:] == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    scene.wait(200)
    assert scene.types() == ["output_audio_buffer.started", "output_audio_buffer.stopped"]
    assert b"".join(scene.played) == seconds(0.1)[:-3] + bytes(3)


def test_a_spoken_response_without_media_goes_out_as_it_is_made() -> None:
    scene = Scene(media=False)
    scene.says("response.create")
    making = scene.partner.makings[0]
    making.audio(seconds(2.5)[:-1])
    making.audio(b"\2")
    making.done()
    deltas = [e["delta"] for e in scene.take() if e["type"] == "response.output_audio.delta"]
    assert b"".join(map(base64.b64decode, deltas)) == seconds(2.5)
    assert max(map(len, deltas)) <= 64000
    assert scene.played == []


def test_a_function_call() -> None:
    scene = Scene()
    scene.says("response.create")
    making = scene.partner.makings[0]
    making.call("weather", '{"city": "Kiel"}', "call_1")
    making.done()
    events = {event["type"]: event for event in scene.take()}
    assert events["response.function_call_arguments.delta"]["delta"] == '{"city": "Kiel"}'
    assert events["response.function_call_arguments.done"]["name"] == "weather"
    item = events["response.done"]["response"]["output"][0]
    assert (item["type"], item["call_id"], item["status"]) == ("function_call", "call_1", "completed")
    scene.says("conversation.item.create", item={"type": "function_call_output", "call_id": "call_1", "output": "wet"})
    scene.says("response.create")
    kinds = [item.kind for item in scene.partner.makings[1].items]
    assert kinds == ["function_call", "function_call_output"]


def test_one_response_at_a_time_is_in_the_conversation() -> None:
    scene = Scene()
    scene.says("response.create")
    scene.take()
    scene.says("response.create", event_id="second")
    error = scene.error()
    assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "second")
    scene.partner.makings[0].done()
    scene.take()
    scene.says("response.create")
    assert scene.types()[0] == "response.created"


def test_responses_outside_the_conversation_leave_no_trace_in_it() -> None:
    scene = Scene()
    scene.says("conversation.item.create", item={**MESSAGE, "id": "a"})
    scene.says("response.create")
    said = {"conversation": "none", "output_modalities": ["text"], "input": [MESSAGE], "metadata": {"k": "v"}}
    scene.take()
    scene.says("response.create", response={**said, "instructions": "rhyme"})
    making = scene.partner.makings[1]
    assert (making.settings.instructions, making.settings.modality, len(making.items)) == ("rhyme", "text", 1)
    making.text("well")
    making.done()
    events = scene.take()
    assert not any(event["type"].startswith("conversation.") for event in events)
    assert (events[-1]["response"]["conversation_id"], events[-1]["response"]["metadata"]) == (None, {"k": "v"})


@pytest.mark.parametrize(("picture_bytes", "most"), [(0, 32), (3 << 20, 21)])
def test_responses_that_wait_to_be_heard_are_bounded_with_what_they_answer(picture_bytes: int, most: int) -> None:
    scene = Scene()
    picture = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * picture_bytes}
    item = {"type": "message", "role": "user", "content": [picture]}
    for _ in range(40):
        scene.says("response.create", response={"conversation": "none", "input": [item]})
        scene.now += 1
        scene.conversation._inbox.tick()  # and nothing is heard
        for making in scene.partner.makings:
            making.audio(bytes(48))
            making.done()
    assert len(scene.partner.makings) == most
    assert scene.types()[-1] == "error"


def test_a_cancelled_response_is_over_and_the_agent_knows() -> None:
    scene = Scene()
    scene.says("response.create")
    making = scene.partner.makings[0]
    making.audio(seconds(1))
    scene.wait(100)
    scene.take()
    scene.says("response.cancel")
    done = scene.take()[-1]["response"]
    assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "client_cancelled")
    assert making.cancelled
    assert ("cancelled", making.id) in scene.partner.told
    making.text("late")
    making.done()
    assert scene.take() == []
    # What was handed over is heard until the client clears it.
    scene.wait(20)
    scene.says("output_audio_buffer.clear")
    cleared, truncated = scene.take()
    assert (cleared["type"], cleared["response_id"]) == ("output_audio_buffer.cleared", making.id)
    assert (truncated["type"], truncated["audio_end_ms"]) == ("conversation.item.truncated", 120)


def test_a_response_that_fails_says_why() -> None:
    scene = Scene()
    scene.says("response.create")
    scene.partner.makings[0].fail("no model", "upstream")
    response = scene.take()[-1]["response"]
    assert (response["status"], response["status_details"]["error"]["code"]) == ("failed", "upstream")


def test_an_agent_without_end_is_ended() -> None:
    scene = Scene()
    scene.says("response.create")
    for _ in range(400):
        scene.partner.makings[0].audio(seconds(1))
    response = scene.take()[-1]["response"]
    assert (response["status"], response["status_details"]["reason"]) == ("incomplete", "max_output_tokens")


def test_an_agent_that_makes_no_responses_is_asked_for_none() -> None:
    scene = Scene()
    scene.partner.responds = False
    scene.turn()
    assert "response.created" not in scene.types()
    scene.says("response.create")
    assert scene.error()["code"] == "unsupported"
