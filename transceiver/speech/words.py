"""Words of agents and of their upstreams as text that can be encoded, whatever pieces they come in. Pure.

JSON writes a character beyond U+FFFF as two halves, a surrogate pair, and a server that cuts its answer anywhere sends
each in a piece of its own. A half alone is no Unicode text: a call with one in it can be neither kept nor handed over.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["Words", "loads", "whole", "whole_in"]


def whole(text: str) -> str:
    """The text in which two halves that belong together are one character, and any other half is U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def whole_in(value: Any) -> Any:
    """The JSON value in which every text is ``whole``."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {whole_in(name): whole_in(inner) for name, inner in value.items()}
    return [whole_in(inner) for inner in value] if isinstance(value, list | tuple) else value


def loads(text: bytes | str) -> Any:
    """The value of a JSON text as careless servers write it: it may hold half a character, and what is no UTF-8 in it
    is U+FFFD. Raises ValueError or RecursionError."""
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:
        return json.loads(error.object.decode("utf-8-sig", "replace"))


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
