"""A Realtime conversation's items: their order, pictures, what they may weigh, and what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from realtime_run import MESSAGE, Scene


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
