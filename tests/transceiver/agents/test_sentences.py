"""Streamed text in pieces that can be spoken."""

from __future__ import annotations

import pytest

from transceiver.speech.sentences import Sentences


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Once upon a time, there was a king. He slept.", ["Once upon a time, ", "there was a king. ", "He slept."]),
        ("Yes, I think so. Do you, too?", ["Yes, I think so. ", "Do you, too?"]),
        ("No comma in this one. And here, there is.", ["No comma in this one. ", "And here, there is."]),
        ("It costs 1,000,000 dollars: much.", ["It costs 1,000,000 dollars: ", "much."]),
        ("Without any end", ["Without any end"]),
        ("", []),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_first_piece_may_be_a_clause_and_no_letter_is_lost(text: str, pieces: list[str], size: int) -> None:
    cutter = Sentences(first_clause=True)
    found = [piece for at in range(0, len(text), size) for piece in cutter.push(text[at : at + size])]
    rest = cutter.rest()
    assert [*found, *([rest] if rest else [])] == pieces
    assert "".join(pieces) == text
