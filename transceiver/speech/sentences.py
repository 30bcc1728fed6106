"""The splitter of streamed text into sentences: the first is spoken before the last is written. Pure."""

from __future__ import annotations

import re

__all__ = ["Sentences"]

_END = re.compile(r"[.!?…]+[\"')\]]*\s+|\n+|[。！？]")
_SHORTEST = 12  # characters: "Dr. " is no sentence
_LONGEST = 400


class Sentences:
    """The splitter. ``push`` returns what is whole, ``rest`` what is left at the end. Nothing is lost: joined, they are
    the text."""

    def __init__(self) -> None:
        self._text = ""

    def push(self, delta: str) -> list[str]:
        """The sentences that ``delta`` completes; one without an end is cut after 400 characters."""
        self._text += delta
        found = []
        at = 0
        for end in _END.finditer(self._text):
            if end.end() - at >= _SHORTEST:
                found.append(self._text[at : end.end()])
                at = end.end()
        while len(self._text) - at > _LONGEST:
            space = self._text.rfind(" ", at, at + _LONGEST) + 1
            cut = space if space > at else at + _LONGEST
            found.append(self._text[at:cut])
            at = cut
        self._text = self._text[at:]
        return found

    def rest(self) -> str:
        """The text that has no end yet."""
        text, self._text = self._text, ""
        return text
