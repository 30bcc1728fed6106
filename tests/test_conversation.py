"""A Realtime conversation from both ends: each event of the client's, each error, turns, and interruptions."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from realtime_run import QUIET, Partner, Scene, every_client_event, loud

from transceiver.realtime.config import InvalidRequest

MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
VAD = "session.audio.input.turn_detection"
NO_TURNS = {"audio": {"input": {"turn_detection": None}}}


def turn_detection(**fields: Any) -> dict[str, Any]:
    return {"audio": {"input": {"turn_detection": fields}}}


def seconds(count: float) -> bytes:
    return b"\1\2" * round(24000 * count)


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


# --- items ---


def test_items_keep_the_order_that_the_client_gives_them() -> None:
    scene = Scene()
    for id_, after in (("b", None), ("d", None), ("a", "root"), ("c", "b")):
        scene.says("conversation.item.create", previous_item_id=after, item={**MESSAGE, "id": id_})
    assert [event["previous_item_id"] for event in scene.take()] == [None, None, "b", "b", None, None, "b", "b"]
    scene.says("response.create")
    assert [item.id for item in scene.partner.makings[0].items] == ["a", "b", "c", "d"]


def test_an_item_is_added_retrieved_and_deleted() -> None:
    scene = Scene()
    scene.says("conversation.item.create", item={**MESSAGE, "id": "a"})
    scene.says("conversation.item.retrieve", item_id="a")
    scene.says("conversation.item.delete", item_id="a")
    added, done, retrieved, deleted = scene.take()
    assert [e["type"].rpartition(".")[2] for e in (added, done, retrieved, deleted)] == [
        "added", "done", "retrieved", "deleted",
    ]  # fmt: skip
    assert added["item"] == done["item"] == retrieved["item"]
    assert retrieved["item"]["content"] == [{"type": "input_text", "text": "hello"}]
    assert scene.partner.items[0].text == "hello"


@pytest.mark.parametrize(
    ("type_", "fields", "code"),
    [
        ("conversation.item.retrieve", {"item_id": "x"}, "item_retrieve_invalid_item_id"),
        ("conversation.item.delete", {"item_id": "x"}, "item_delete_invalid_item_id"),
        (
            "conversation.item.truncate",
            {"item_id": "x", "content_index": 0, "audio_end_ms": 0},
            "item_truncate_invalid_item_id",
        ),
        ("conversation.item.create", {"item": MESSAGE, "previous_item_id": "x"}, "item_not_found"),
        ("conversation.item.create", {"item": {**MESSAGE, "role": "king"}}, "invalid_value"),
        ("conversation.item.create", {"item": {"type": "message", "role": "user"}}, "missing_required_parameter"),
        ("response.cancel", {}, "response_cancel_not_active"),
        ("response.create", {"response": {"mood": "good"}}, "unknown_parameter"),
        ("response.create", {"response": {"input": [{"type": "item_reference", "id": "x"}]}}, "item_not_found"),
        ("input_audio_buffer.commit", {}, "input_audio_buffer_commit_empty"),
        ("input_audio_buffer.append", {"audio": "AAAA"}, "invalid_value"),
    ],
)
def test_what_cannot_be_done_is_an_error_with_the_events_id(type_: str, fields: dict[str, Any], code: str) -> None:
    scene = Scene()
    scene.says(type_, event_id="mine", **fields)
    error = scene.error()
    assert (error["code"], error["event_id"], error["type"]) == (code, "mine", "invalid_request_error")


def test_a_second_item_of_the_same_id_is_refused() -> None:
    scene = Scene()
    scene.says("conversation.item.create", item={**MESSAGE, "id": "a"})
    scene.take()
    scene.says("conversation.item.create", item={**MESSAGE, "id": "a"})
    assert scene.error()["param"] == "item.id"


def test_pictures_reach_the_agent_and_do_not_come_back() -> None:
    scene = Scene()
    url = "data:image/jpeg;base64," + "A" * 400_000
    content = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "what is it?"}]
    scene.says("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    assert scene.partner.items[0].images == (url,)
    assert all(len(json.dumps(event)) < 1000 for event in scene.take())


def test_a_conversation_keeps_no_more_than_it_may() -> None:
    scene = Scene()
    for _ in range(200):
        scene.says(
            "conversation.item.create",
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 125_000}]},
        )
        scene.wait(200)
    scene.says("response.create")
    assert 15 << 20 < sum(len(item.text) for item in scene.partner.makings[0].items) <= 16 << 20


def test_a_transcript_of_the_users_is_told() -> None:
    scene = Scene()
    scene.turn()
    item = scene.partner.items[0]
    scene.take()
    scene.conversation.transcribed(item.id, "good day")
    scene.conversation.transcribed("nobody", "good day")
    (event,) = scene.take()
    assert event["type"] == "conversation.item.input_audio_transcription.completed"
    assert (event["item_id"], event["content_index"], event["transcript"]) == (item.id, 0, "good day")
    scene.says("conversation.item.retrieve", item_id=item.id)
    assert scene.take()[0]["item"]["content"] == [{"type": "input_audio", "transcript": "good day"}]


@pytest.mark.parametrize("part", ["call", "output"])
def test_an_output_needs_its_call(part: str) -> None:
    scene = Scene()
    output = {"type": "function_call_output", "call_id": "c", "output": "{}"}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    scene.says("conversation.item.create", event_id="mine", item=output)
    error = scene.error()
    assert (error["param"], error["event_id"]) == ("item.call_id", "mine")
    scene.says("response.create", response={"conversation": "none", "input": [output]})
    assert scene.error()["param"] == "response.input[0].call_id"
    if part == "call":
        scene.says("response.create", response={"conversation": "none", "input": [call, output]})
        assert scene.types() == ["response.created", "rate_limits.updated"]
        scene.says("conversation.item.create", item=call)
    else:
        scene.says("response.create")
        scene.partner.makings[0].call("f", "{}", "c")
        scene.partner.makings[0].done()
    scene.take()
    scene.says("conversation.item.create", item=output)
    assert scene.types() == ["conversation.item.added", "conversation.item.done"]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "http://169.254.169.254/latest/meta-data", "https://example.com/a.png", "ftp://x/", "",
        "data:text/html,<script>", "data:image/png", "//example.com/a.png", "DATA:text/plain,x", "javascript:1",
    ],
)  # fmt: skip
def test_pictures_are_data_urls(url: str) -> None:
    scene = Scene()
    item = {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": url}]}
    scene.says("conversation.item.create", item=item)
    assert scene.error()["param"] == "item.content[0].image_url"
    scene.says("response.create", response={"conversation": "none", "input": [item]})
    assert scene.error()["param"] == "response.input[0].content[0].image_url"
    assert scene.partner.items == []


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("data:image/jpeg;base64,AAAA", True),
        ("https://example.com/a.png", True),
        ("https://cdn.example.co.uk:443/a?b=c", True),
        ("https://93.184.216.34/a.png", True),
        ("https://[2606:4700::1]/a.png", True),
        ("http://example.com/a.png", False),
        ("file:///etc/passwd", False),
        ("https://localhost/", False),
        ("https://metadata/", False),
        ("https://metadata.google.internal/", False),
        ("https://printer.local/", False),
        ("https://a.localhost/", False),
        ("https://127.0.0.1/", False),
        ("https://169.254.169.254/", False),
        ("https://10.0.0.1/", False),
        ("https://[::1]/", False),
        ("https://[fe80::1%25eth0]/", False),
        ("https://[::ffff:127.0.0.1]/", False),
        ("https://2130706433/", False),
        ("https://0x7f.0.0.1/", False),
        ("https://127.1/", False),
        ("https://127.0.0.1./", False),
        ("https://example.com@127.0.0.1/", False),
        ("https://example.com:8443/", False),
        ("https://example.com\\@127.0.0.1/", False),
        ("https://exa mple.com/", False),
        ("https://example.com/" + "a" * 3000, False),
    ],
)
def test_where_pictures_by_https_are_allowed_they_are_of_public_hosts(url: str, taken: bool) -> None:
    scene = Scene(pictures="https")
    item = {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": url}]}
    scene.says("conversation.item.create", item=item)
    assert (scene.types()[0] == "conversation.item.added") is taken


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "é" * (65 << 10)}]},
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "x" * (3 << 10)}] * 50},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ""}] * 65},
        {"type": "function_call", "name": "f", "arguments": "x" * (129 << 10)},
        {"type": "function_call", "name": "f" * 300, "arguments": ""},
    ],
)
def test_an_item_is_as_large_as_it_may_come_back(item: dict[str, Any]) -> None:
    scene = Scene()
    scene.says("conversation.item.create", event_id="mine", item=item)
    assert scene.error()["event_id"] == "mine"


def test_however_often_a_large_item_is_asked_for_little_goes_out_in_a_tick() -> None:
    scene = Scene(media=False)
    text = {"type": "input_text", "text": "x" * (127 << 10)}
    scene.says("conversation.item.create", item={"id": "a", "type": "message", "role": "user", "content": [text]})
    scene.wait(1000)
    scene.take()
    for _ in range(2000):
        scene.says("conversation.item.retrieve", item_id="a")
    sent = []
    for _ in range(50):
        before = scene.sent_bytes
        scene.wait(20)
        sent.append(scene.sent_bytes - before)
    assert max(sent) < 300 << 10
    assert 0 < sum(sent) < 8 << 20
    scene.wait(20_000)
    types = scene.types()
    assert 200 < types.count("conversation.item.retrieved") <= 257
    assert types.count("error") == 1


def test_what_costs_much_is_done_over_as_many_ticks_as_it_needs() -> None:
    scene = Scene(media=False, session={"audio": {"input": {"format": {"type": "audio/pcmu"}}}})
    ten_seconds = base64.b64encode(b"\xff" * 80_000).decode()
    item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": ten_seconds}]}
    scene.says("conversation.item.create", item=item)
    scene.says("input_audio_buffer.append", audio=ten_seconds)
    scene.says("input_audio_buffer.clear")
    assert scene.take() == []
    heard = []
    for _ in range(100):
        before = scene.partner.heard_ms
        scene.wait(20)
        heard.append(scene.partner.heard_ms - before)
    assert scene.types() == ["conversation.item.added", "conversation.item.done", "input_audio_buffer.cleared"]
    assert len(scene.partner.items[0].pcm) == 480_000
    assert sum(heard) == 10_000
    assert max(heard) <= 1200


def test_an_item_that_is_too_long_or_not_base64_is_refused_after_all() -> None:
    scene = Scene(media=False, session={"audio": {"input": {"format": {"type": "audio/pcmu"}}}})
    for audio in ("A" * (3 << 20), "A" * 100_000 + "*"):
        item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": audio}]}
        scene.says("conversation.item.create", event_id="mine", item=item)
        scene.wait(20_000)
        error = scene.error()
        assert (error["param"], error["event_id"]) == ("item.content.audio", "mine")
    assert scene.partner.items == []


# --- responses ---


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


# --- turns ---


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


# --- interruptions ---


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


def test_a_pressed_key_is_told_and_interrupts_nothing() -> None:
    scene = Scene()
    scene.conversation.pressed("#", 1_700_000_000)
    [event] = scene.events
    assert event.pop("event_id")
    assert event == {"type": "input_audio_buffer.dtmf_event_received", "event": "#", "received_at": 1_700_000_000}
    assert scene.partner.told == [("dtmf", "#")]


def test_who_asks_is_told_how_media_came_and_went() -> None:
    scene = Scene()
    scene.says("firsthop.media.retrieve")
    (told,) = scene.take()
    assert (told["type"], told["heard"]) == ("firsthop.media", {"heard": 0})
    scene = Scene(media=False)
    scene.says("firsthop.media.retrieve", event_id="mine")
    assert scene.error()["event_id"] == "mine"


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
