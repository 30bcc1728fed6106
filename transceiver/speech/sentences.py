"""The splitter of streamed text into pieces to be spoken: the first is spoken before the last is written. Pure."""

from __future__ import annotations

import re

__all__ = ["FIRST_WORDS", "Sentences"]

FIRST_WORDS = 4
"""Words that are worth speaking before the others are written: a second of speech."""
_END = re.compile(r"[.!?…]+[\"')\]]*\s+|\n+|[。！？]")
_CLAUSE = re.compile(r"[,;:–—]+[\"')\]]*\s+")
_WORD = re.compile(r"\S+\s+")
# Words that lean on the next one: nobody pauses after them.
_LEANING = frozenset(
    re.findall(
        r"\S+",
        """a an the and or but nor of in on at to for from by with as into than that which who is are was were be
        been has have had do does did can could will would should may might must not no my your his her its our their
        this these those i you he she it we they if when while because so very more most it's that's there's i'm""",
    )
)
_SHORTEST = 12  # characters: "Dr. " is no sentence
_LONGEST = 400
_MOST_LEANING = 3  # words more than are enough
_NOWHERE = 1 << 30


class Sentences:
    """The splitter. ``push`` returns what is whole, ``rest`` what is left at the end. Nothing is lost: joined, they are
    the text. The first piece ends with its first clause where that is asked for, at a comma say, and with so many
    ``first_words`` if that is sooner, or a few more, so that it does not end with an article."""

    def __init__(self, *, first_clause: bool = False, first_words: int | None = None) -> None:
        self._text = ""
        self._clause = first_clause
        self._words = first_words

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
        clause, sentence = _end(_CLAUSE, self._text), _end(_END, self._text)
        end = min(clause, self._first_words())
        self._clause = end == sentence == _NOWHERE
        if end == _NOWHERE or sentence < end:
            return 0
        found.append(self._text[:end])
        return end

    def _first_words(self) -> int:
        """Where as many words end as are enough."""
        if self._words is None:
            return _NOWHERE
        for at, word in enumerate(_WORD.finditer(self._text), 1):
            leans = word[0].strip().lower() in _LEANING and at < self._words + _MOST_LEANING
            if at >= self._words and word.end() >= _SHORTEST and not leans:
                return word.end()
        return _NOWHERE

    def rest(self) -> str:
        """The text that has no end yet."""
        text, self._text = self._text, ""
        return text


def _end(what: re.Pattern[str], text: str) -> int:
    """Where the first of them ends that is not too soon."""
    return next((end.end() for end in what.finditer(text) if end.end() >= _SHORTEST), _NOWHERE)
