"""The reader and writer of events as JSON text, within bounds. Pure.

The cost of a text is known before anything is made of it: how long it is, how many values it holds and how deep they
lie. A megabyte of ``[],[],`` would take 90 ms of the media loop; the largest event that is read takes 2 (RFC 8259
section 9 allows such limits).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from transceiver.realtime.config import InvalidRequest
from transceiver.speech.words import whole_in
from wire.link import MAX_EVENT_BYTES

__all__ = ["check_depth", "count_values", "event_id_in", "read", "write"]

T = TypeVar("T", str, bytes)

_SMALL_BYTES = 256 << 10  # of an event as a data channel takes it, which may be made of anything
_MOST_NOT_ASCII_BYTES = 1 << 20  # of an event that is not all ASCII, which takes four times as long
_MOST_VALUES = 8_000
_MOST_VALUES_IF_LARGE = 4_000  # and escapes: what is larger is a picture or a recording, and a little around it
_DEEPEST = 64
_EVENT_ID = re.compile(r'"event_id"\s{0,8}:\s{0,8}"([^"\\]{1,512})"')
_LOOKED_THROUGH = 4096  # characters at either end


def count_values(text: str | bytes) -> int:
    """A lower bound of the number of values in an event's text; counting ends at one more than it may have. Every value
    but the first has a comma or a bracket before it. Those in strings count too: prose has one in 60 characters, so
    this refuses nothing that its length would not."""
    if isinstance(text, str):
        return _count(text.count, text.find, len(text), (",", "[", "{", "\\"))
    return _count(text.count, text.find, len(text), (b",", b"[", b"{", b"\\"))


def _count(count: Callable[[T], int], find: Callable[[T, int], int], size: int, marks: tuple[T, ...]) -> int:
    if size <= _SMALL_BYTES:
        return sum(map(count, marks[:3]))
    # Counting looks at every character, finding at sixteen at once: it is faster where there are few.
    found = 0
    for mark in marks:
        at = find(mark, 0)
        while at >= 0:
            found += 1
            if found > _MOST_VALUES_IF_LARGE:
                return found
            at = find(mark, at + 1)
    return found


def read(text: str | bytes, values: int) -> dict[str, Any]:
    """The object in a message that has ``values`` values. Raises InvalidRequest unless it is a JSON object with a
    type, within bounds."""
    if len(text) > MAX_EVENT_BYTES:
        raise InvalidRequest(f"An event has at most {MAX_EVENT_BYTES >> 20} MiB.", "invalid_event")
    if len(text) > _MOST_NOT_ASCII_BYTES and not text.isascii():
        raise InvalidRequest(f"An event of more than {_MOST_NOT_ASCII_BYTES >> 20} MiB is ASCII.", "invalid_event")
    if values > (_MOST_VALUES if len(text) <= _SMALL_BYTES else _MOST_VALUES_IF_LARGE):
        raise InvalidRequest("The event has more values than one may have.", "invalid_event")
    try:
        event = msgspec.json.decode(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as e:  # msgspec's own errors, and those of UTF-8
        raise InvalidRequest(f"An event is a JSON object with a type: {_why(e)}.", "invalid_event") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise InvalidRequest("An event is a JSON object with a type.", "invalid_event")
    check_depth(event)
    return event


def check_depth(value: dict[str, Any]) -> None:
    """Raises InvalidRequest where maps and lists are nested deeper than they may be."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        inside = (inner.values() if isinstance(inner, dict) else inner for inner in level)
        level = [inner for values in inside for inner in values if type(inner) is dict or type(inner) is list]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"Nothing in an event may lie deeper than {_DEEPEST} levels.", "invalid_event")


def _why(error: ValueError) -> str:
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    return str(error).removeprefix("JSON is malformed: ")[:200]


def event_id_in(text: str | bytes) -> str | None:
    """The id that seems to be in a text that could not be read, for the error about it to repeat."""
    for part in (text[:_LOOKED_THROUGH], text[-_LOOKED_THROUGH:]):
        found = _EVENT_ID.search(part if isinstance(part, str) else part.decode(errors="replace"))
        if found:
            return found[1]
    return None


def write(event: dict[str, Any]) -> str:
    """The event as ASCII, one byte a character. Numbers that JSON does not have become null."""
    try:
        text = msgspec.json.encode(event)
    except UnicodeEncodeError:  # half a character, of an agent that cuts its words anywhere
        event = whole_in(event)
        text = msgspec.json.encode(event)
    if text.isascii():
        return text.decode("ascii")
    try:
        return json.dumps(event, allow_nan=False)
    except ValueError:
        return json.dumps(msgspec.json.decode(text))
