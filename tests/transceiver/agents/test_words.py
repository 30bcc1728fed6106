"""Words that an agent cuts within a character come out whole, and a call with them can be kept."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from session_run import a_call, until

from transceiver.agents import Base, Response
from transceiver.speech.words import Words, loads, whole, whole_in
from transceiver.state import decoded, encoded


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ""),
        ("words", "words"),
        ("größer 😀", "größer 😀"),
        ("\ud83d\ude00", "😀"),
        ("a\ud83d", "a\ufffd"),
        ("\ude00a", "\ufffda"),
        ("\ud83d\ud83d\ude00b", "\ufffd😀b"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
    ],
)
def test_halves_that_belong_together_are_one_character(text: str, found: str) -> None:
    assert whole(text) == found


def test_each_text_of_a_value_is_whole() -> None:
    value = {"\ud83d": ["\ude00", 1, {"a": ("\ud83d\ude00", None)}], "b": True}
    assert whole_in(value) == {"\ufffd": ["\ufffd", 1, {"a": ["😀", None]}], "b": True}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rb'"\ud83d"', "\ud83d"),
        (b'"a\xf0\x9f"', "a\ufffd"),
        ("\ufeff[]".encode(), []),
        (b'\xef\xbb\xbf"\xff"', "\ufffd"),
    ],
)
def test_json_of_careless_servers_is_read(text: bytes, value: object) -> None:
    assert loads(text) == value


@given(st.lists(st.text(st.sampled_from("aé😀\ud83d\ude00"), max_size=4), max_size=8))
def test_pieces_are_whole_wherever_they_are_cut(pieces: list[str]) -> None:
    words = Words()
    came = [words.push(piece) for piece in pieces]
    for piece in came:
        piece.encode()
    said = whole("".join(pieces))
    assert "".join(came) in (said, said[:-1])  # half a character at the end waits


def test_cut_anywhere_an_answer_is_the_same() -> None:
    halves = "so 😀 be 😀 it".encode("utf-16-le")
    units = [halves[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(halves), 2)]
    for cut in itertools.combinations(range(len(units)), 2):
        words = Words()
        pieces = ["".join(units[a:b]) for a, b in itertools.pairwise((0, *cut, len(units)))]
        assert "".join(words.push(piece) for piece in pieces) == "so 😀 be 😀 it"


class Cutting(Base):
    """An agent that says half a character at a time, and one half too many."""

    def respond(self, response: Response) -> None:
        for half in ("\ud83d", "\ude00", "\ude00", "\ud83d"):
            response.transcript(half)
        response.call("\ud83d", '{"a": "\ud83d"}', "\ude00")
        response.done()


async def test_a_call_with_them_can_be_kept() -> None:
    async with a_call(Cutting) as call:
        channel = await call.open_channel()
        channel.send('{"type": "response.create"}')
        await until(lambda: any(event["type"] == "response.done" for event in call.events))
        said = [event["delta"] for event in call.events if event["type"] == "response.output_audio_transcript.delta"]
        assert said == ["😀", "\ufffd"]
        decoded(encoded(call.session.snapshot()))
