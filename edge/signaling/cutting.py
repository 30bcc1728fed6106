"""The cutting of long WebSocket events into events that a transceiver takes. Pure.

A transceiver reads an event between two frames of its callers' media, so it takes none that is longer than 4 MiB. Audio
may be appended by up to 16 MiB at once (OpenAI documents 15 MiB of it): that goes on as several events, which means the
same. Here it delays no media.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import msgspec

from wire.link import MAX_EVENT_BYTES

__all__ = ["MAX_BYTES", "TooLargeError", "parts"]

MAX_BYTES = 16 << 20  # of an event as a client sends it
_WHOLE = 256 << 10  # characters of one that goes on as it is
_PIECE = 192 << 10  # characters of base64, a multiple of four
_MOST_ESCAPED = 64 << 10  # bytes of what is not ASCII in an event that is longer
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


class TooLargeError(ValueError):
    """An event that no transceiver takes; the text is for the client."""

    def __init__(self, message: str, event_id: str | None) -> None:
        super().__init__(message)
        self.event_id = event_id


class _Event(msgspec.Struct, omit_defaults=True):
    type: str
    event_id: str | None = None


class _Append(_Event, omit_defaults=True):
    audio: str = ""


def parts(event: str) -> Iterator[str]:
    """The events that go on in place of one, as JSON text. Raises TooLargeError."""
    if len(event) <= _WHOLE:
        yield event
        return
    append = _append(event)
    if append is not None:
        for at in range(0, len(append.audio), _PIECE):
            piece = _Append(append.type, append.event_id, append.audio[at : at + _PIECE])
            yield msgspec.json.encode(piece).decode()
        return
    # To read what is long is cheap only where it is ASCII.
    if not event.isascii() and len(event.encode(errors="replace")) - len(event) <= _MOST_ESCAPED:
        event = _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], event)
    if len(event) > MAX_EVENT_BYTES or not event.isascii():
        why = f"An event has at most {MAX_EVENT_BYTES >> 20} MiB, audio that is appended {MAX_BYTES >> 20}."
        if len(event) <= MAX_EVENT_BYTES:
            why = f"An event of more than {_WHOLE >> 10} KiB may have {_MOST_ESCAPED >> 10} KiB that are not ASCII."
        raise TooLargeError(why, _event_id(event))
    yield event


def _append(event: str) -> _Append | None:
    try:
        append = msgspec.json.decode(event, type=_Append)
    except (ValueError, RecursionError):
        return None
    return append if append.type == "input_audio_buffer.append" else None


def _event_id(event: str) -> str | None:
    try:
        return msgspec.json.decode(event, type=_Event).event_id
    except (ValueError, RecursionError):
        return None
