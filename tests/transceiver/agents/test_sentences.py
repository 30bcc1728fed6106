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


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("The capital of France is Paris. It is old.", ["The capital of France ", "is Paris. It is old."]),
        ("The ocean is a vast place.", ["The ocean is a vast ", "place."]),
        ("This is the one that was in the house.", ["This is the one ", "that was in the house."]),
        ("That was one of the best of all years.", ["That was one of the best ", "of all years."]),
        ("It is in the and of a to do.", ["It is in the and of a ", "to do."]),
        ("Yes, I think so too. Do you?", ["Yes, I think so too. ", "Do you?"]),
        ("A b c d e f g h i.", ["A b c d e f ", "g h i."]),
        ("In the end, all is well.", ["In the end, ", "all is well."]),
        ("I can help you.", ["I can help you."]),
        ("", []),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_first_words_may_be_a_piece_that_leans_on_nothing(text: str, pieces: list[str], size: int) -> None:
    cutter = Sentences(first_clause=True, first_words=4)
    found = [piece for at in range(0, len(text), size) for piece in cutter.push(text[at : at + size])]
    rest = cutter.rest()
    assert [*found, *([rest] if rest else [])] == pieces
    assert "".join(pieces) == text
