"""Upstream's events are read as they come, half a character in them included; what is no event is none."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transceiver.agents import Item
from transceiver.upstreams.events import decoded
from transceiver.upstreams.made import Made

DELTA = "response.output_audio_transcript.delta"


def test_half_a_character_in_a_delta_stays_for_the_next_one() -> None:
    halves = [decoded(rb'{"type":"x","delta":"so \ud83d"}'), decoded(rb'{"type":"x","delta":"\ude00"}')]
    assert halves == [{"type": "x", "delta": "so \ud83d"}, {"type": "x", "delta": "\ude00"}]


@pytest.mark.parametrize(
    ("text", "event"),
    [
        (rb'{"type":"x","name":"\ud83d"}', {"type": "x", "name": "\ufffd"}),
        (rb'{"type":"x","name":"\ud83d\ude00"}', {"type": "x", "name": "😀"}),
        (
            rb'{"response":{"usage":{"\ude00":["a\ud83d",1.5,null]}}}',
            {"response": {"usage": {"\ufffd": ["a\ufffd", 1.5, None]}}},
        ),
        (b'{"type":"x","delta":"cut \xf0\x9f\x98"}', {"type": "x", "delta": "cut \ufffd"}),
        (b'{"type":"x","item_id":"\xff"}', {"type": "x", "item_id": "\ufffd"}),
    ],
)
def test_elsewhere_it_is_replaced(text: bytes, event: object) -> None:
    assert decoded(text) == event


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        rb'["\ud83d"]',
        rb'"\ud83d"',
        rb'{"type":"\ud83d","usage":NaN}',
        rb'{"type":"\ud83d","usage":1e999}',
        rb'{"type":"\ud83d"',
        b'{"type":"x"}\xff',
        b"[" * 100_000,
        b'{"a":"\xff","b":' + b"[" * 100_000,
    ],
)
def test_what_is_no_event_is_none(text: bytes) -> None:
    assert decoded(text) is None


@given(st.binary(max_size=40), st.sampled_from([b'{"type":"', b'{"delta":"', b'{"response":{"usage":{"', b""]))
def test_what_is_read_is_json_again_but_for_a_delta(junk: bytes, begins: bytes) -> None:
    event = decoded(begins + junk + (b'"}' if begins else b""))
    if event is not None:
        msgspec.json.encode({**event, "delta": ""})


def test_a_message_of_upstreams_is_known_by_its_whole_words() -> None:
    made = Made()
    for half in ("so \ud83d", "\ude00 be it"):
        made.take({"type": DELTA, "delta": half})
    made.take({"type": "response.done"})
    said = Item("item_1", role="assistant", text="so 😀 be it")
    assert not made.cut_short([said])
    assert made.has(said)
