"""Words of agents as text that can be encoded, whatever pieces they come in. Pure.

JSON writes a character beyond U+FFFF as two halves, a surrogate pair, and a server that cuts its answer anywhere sends
each in a piece of its own. A half alone is no Unicode text: a call with one in it can be neither kept nor handed over.
"""

from __future__ import annotations

__all__ = ["Words", "whole"]


def whole(text: str) -> str:
    """The text in which two halves that belong together are one character, and any other half is U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class Words:
    """The pieces of one text: the first half of a character waits for the second."""

    def __init__(self) -> None:
        self._half = ""

    def push(self, piece: str) -> str:
        """Returns what is whole with this piece, which may be nothing."""
        text, self._half = self._half + piece, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return whole(text)
