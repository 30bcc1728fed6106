"""Words while they are spoken: only those that do not change any more."""

from __future__ import annotations

import pytest

from transceiver.speech.partial import Partial


@pytest.mark.parametrize(
    ("hypotheses", "told"),
    [
        (["What", "What time", "What time is it?"], ["", "What", " time"]),
        (["I scream", "Ice cream", "Ice cream, please", "Ice cream, please"], ["", "", "Ice cream,", " please"]),
        (["hello world", "Hello, world!"], ["", "Hello, world!"]),
        (
            ["one two three", "one two three", "one", "one two three four", "one two three four"],
            ["", "one two three", "", "", " four"],
        ),
        (["", "", "yes"], ["", "", ""]),
    ],
)
def test_what_two_hypotheses_have_in_common_is_told_once(hypotheses: list[str], told: list[str]) -> None:
    partial = Partial()
    assert [partial.push(words) for words in hypotheses] == told
