"""Words while they are spoken: of what is understood again and again as speech grows, that which does not change any
more. Pure.

A recogniser is surest of what lies well before the end. Words that two hypotheses in a row have in common from the
beginning are told, and are never taken back (Liu, Spanakis and Niehues, "Low-Latency Sequence-to-Sequence Speech
Recognition and Translation by Partial Hypothesis Selection", 2020: local agreement).
"""

from __future__ import annotations

import re
from itertools import takewhile

__all__ = ["Partial"]

_MARKS = re.compile(r"[^\w']+")


class Partial:
    """The words of one turn."""

    def __init__(self) -> None:
        self._before: list[str] = []
        self._told = 0

    def push(self, text: str) -> str:
        """Takes the words of the turn so far, as they are understood now. Returns what may be told in addition."""
        words, before = text.split(), self._before
        self._before = words
        agreed = sum(
            1 for _ in takewhile(lambda pair: _bare(pair[0]) == _bare(pair[1]), zip(before, words, strict=False))
        )
        new = words[self._told : agreed]
        if not new:
            return ""
        delta = (" " if self._told else "") + " ".join(new)
        self._told = agreed
        return delta


def _bare(word: str) -> str:
    return _MARKS.sub("", word).casefold()
