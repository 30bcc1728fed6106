"""The cutting of long WebSocket events: what a client may send in one, and what a transceiver gets of it."""

from __future__ import annotations

import base64
import json
import os

import pytest

from edge.signaling.cutting import MAX_BYTES, TooLargeError, parts
from wire.link import MAX_EVENT_BYTES

MIB = 1 << 20


@pytest.mark.parametrize("event", ["", "not JSON", '{"type":"x","y":"é"}', "x" * (256 << 10), "y" * MAX_EVENT_BYTES])
def test_an_event_that_is_not_long_goes_on_as_it_is(event: str) -> None:
    assert list(parts(event)) == [event]


@pytest.mark.parametrize("size", [300_001, 11 * MIB])
def test_a_long_append_goes_on_in_pieces_that_are_the_same_audio(size: int) -> None:
    audio = os.urandom(size)
    text = base64.b64encode(audio).decode()
    sent = list(parts(json.dumps({"type": "input_audio_buffer.append", "event_id": "mine", "audio": text, "more": 1})))
    events = [json.loads(part) for part in sent]
    assert {(event["type"], event["event_id"]) for event in events} == {("input_audio_buffer.append", "mine")}
    assert b"".join(base64.b64decode(event["audio"], validate=True) for event in events) == audio
    assert max(map(len, sent)) <= 256 << 10


def test_a_long_event_goes_on_in_ascii() -> None:
    event = {"type": "conversation.item.create", "text": "une cafetière 😀", "picture": "A" * MIB}
    (sent,) = parts(json.dumps(event, ensure_ascii=False))
    assert sent.isascii()
    assert json.loads(sent) == event


@pytest.mark.parametrize(
    "event",
    [
        '{"event_id":"mine","type":"session.update","x":"' + "x" * MAX_EVENT_BYTES + '"}',
        '{"event_id":"mine","type":"session.update","x":"' + "é" * MIB + '"}',
        '{"event_id":"mine","type":"input_audio_buffer.commit","audio":"' + "x" * MAX_EVENT_BYTES + '"}',
        '{"event_id":"mine","type":"input_audio_buffer.append","audio":[' + "1," * 8_000_000 + "1]}",
    ],
)
def test_what_no_transceiver_takes_is_refused_with_its_id(event: str) -> None:
    assert len(event) <= MAX_BYTES
    with pytest.raises(TooLargeError) as refused:
        list(parts(event))
    assert refused.value.event_id == "mine"


@pytest.mark.parametrize(
    "event", ["[" * (16 * MIB), "{" * (5 * MIB), '{"type":"' + "x" * (5 * MIB), "\ud800" * (5 * MIB)]
)
def test_what_cannot_be_read_is_refused_without_one(event: str) -> None:
    with pytest.raises(TooLargeError) as refused:
        list(parts(event))
    assert refused.value.event_id is None
