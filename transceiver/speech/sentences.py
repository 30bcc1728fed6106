"""The splitter of streamed text into pieces to be spoken: the first is spoken before the last is written. Pure."""

from __future__ import annotations

import re

__all__ = ["Sentences"]

_END = re.compile(r"[.!?…]+[\"')\]]*\s+|\n+|[。！？]")
_CLAUSE = re.compile(r"[,;:–—]+[\"')\]]*\s+")
_SHORTEST = 12  # characters: "Dr. " is no sentence
_LONGEST = 400


class Sentences:
    """The splitter. ``push`` returns what is whole, ``rest`` what is left at the end. Nothing is lost: joined, they are
    the text. The first piece ends with its first clause where that is asked for, at a comma say."""

    def __init__(self, *, first_clause: bool = False) -> None:
        self._text = ""
        self._clause = first_clause

    def push(self, delta: str) -> list[str]:
        """The sentences that ``delta`` completes; one without an end is cut after 400 characters."""
        self._text += delta
        found: list[str] = []
        at = self._first_clause(found)
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

    def _first_clause(self, found: list[str]) -> int:
        """Adds the first clause to what was found, once, if it ends before its sentence; returns where it does."""
        if not self._clause:
            return 0
        ends = [end.end() for end in _CLAUSE.finditer(self._text) if end.end() >= _SHORTEST][:1]
        sentence = next((end.end() for end in _END.finditer(self._text) if end.end() >= _SHORTEST), None)
        self._clause = not ends and sentence is None
        if not ends or (sentence is not None and sentence < ends[0]):
            return 0
        found.append(self._text[: ends[0]])
        return ends[0]

    def rest(self) -> str:
        """The text that has no end yet."""
        text, self._text = self._text, ""
        return text
