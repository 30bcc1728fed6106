"""The events that we send upstream, and what upstream's say. Pure."""

from __future__ import annotations

import binascii
import contextlib
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import msgspec

from runtime.tracing.spans import Value
from transceiver.agents import Item, Response, Settings
from transceiver.speech.tasks import Failure
from transceiver.speech.words import loads, whole_in
from transceiver.turns import tokens

__all__ = [
    "CALLED",
    "OWN",
    "WORDS",
    "appends",
    "audio_of",
    "complaint",
    "decoded",
    "ended",
    "is_speech",
    "item_event",
    "item_of",
    "message",
    "response_of",
    "session",
    "take",
    "turn_detection",
    "turns_of",
    "used",
]

OWN = "firsthop_"  # begins the id of an event of which the refusal is no news
RATE_HZ = 24000
CALLED = "response.function_call_arguments.done"
WORDS = "response.output_audio_transcript.delta", "response.output_text.delta"
_AUDIO = "response.output_audio.delta"
_PIECE = RATE_HZ * 2  # a second
_MOST_ID = 256  # characters: ids are kept


def decoded(text: bytes) -> dict[str, Any] | None:
    """The event that a message is; None where it is none. What is passed on has to be JSON again, so it is strict, but
    for half a character: that is U+FFFD, and in a ``delta`` it stays, where the next one may have the other half."""
    try:
        try:
            event = msgspec.json.decode(text)
        except ValueError:
            event = _mended(text)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _mended(text: bytes) -> Any:
    event = loads(text)
    delta = event.pop("delta", None) if isinstance(event, dict) else None
    strict = msgspec.json.decode(json.dumps(whole_in(event), allow_nan=False))
    return {**strict, "delta": delta} if isinstance(delta, str) else strict


def session(settings: Settings, turns: dict[str, Any] | None) -> dict[str, Any]:
    """The ``session.update`` of these settings; ``turns`` is how upstream is to find turns, None where it is not to."""
    pcm = {"type": "audio/pcm", "rate": RATE_HZ}
    voice = {"voice": settings.voice} if settings.voice else {}
    asked: dict[str, Any] = {
        "type": "realtime",
        "instructions": settings.instructions,
        "output_modalities": [settings.modality],
        "tools": list(settings.tools),
        "tool_choice": settings.tool_choice,
        "audio": {
            "input": {"format": pcm, "turn_detection": turns, "transcription": _input(settings, "transcription")},
            "output": {"format": pcm, **voice},
        },
    }
    return {"type": "session.update", "session": asked}


def turn_detection(settings: Settings) -> dict[str, Any] | None:
    """How the client's session finds turns; None where the client commits them."""
    turns = _input(settings, "turn_detection")
    return {name: value for name, value in turns.items() if value is not None} if isinstance(turns, dict) else None


def turns_of(settings: Settings) -> dict[str, Any]:
    """How upstream is to find turns: as the client's session does, where that does."""
    return turn_detection(settings) or {"type": "server_vad"}


def complaint(why: str) -> dict[str, Any]:
    """The event that tells a client what went wrong upstream."""
    error = {"type": "server_error", "code": "agent_failed", "message": why, "param": None, "event_id": None}
    return {"type": "error", "error": error}


def _input(settings: Settings, name: str) -> Any:
    found: Any = settings.more
    for key in ("audio", "input", name):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def appends(pcm: bytes) -> Iterator[dict[str, Any]]:
    """The events that append 24 kHz mono PCM16, a second in each."""
    for at in range(0, len(pcm), _PIECE):
        yield {"type": "input_audio_buffer.append", "audio": b64encode(pcm[at : at + _PIECE]).decode()}


def is_speech(item: Item) -> bool:
    """Whether an item has to be told as sound: nobody knows its words."""
    return item.role == "user" and bool(item.pcm) and not item.text


def item_event(item: Item) -> dict[str, Any]:
    """The event that tells upstream an item whose words are known."""
    return {"type": "conversation.item.create", "item": _item(item)}


def _item(item: Item) -> dict[str, Any]:
    if item.kind == "function_call":
        return {"type": item.kind, "name": item.name, "arguments": item.arguments, "call_id": item.call_id}
    if item.kind == "function_call_output":
        return {"type": item.kind, "call_id": item.call_id, "output": item.text}
    kind = "output_text" if item.role == "assistant" else "input_text"
    content: list[dict[str, str]] = [{"type": kind, "text": item.text}]
    content += [{"type": "input_image", "image_url": url} for url in item.images]
    return {"type": "message", "role": item.role or "user", "content": content}


def response_of(event: dict[str, Any]) -> str:
    """The id of the response that an event is of, or nothing."""
    response = event.get("response")
    found = response.get("id") if isinstance(response, dict) else event.get("response_id")
    return found[:_MOST_ID] if isinstance(found, str) else ""


def item_of(event: dict[str, Any]) -> str:
    """The id of the item that an event is of, or nothing."""
    found = event.get("item_id")
    return found[:_MOST_ID] if isinstance(found, str) else ""


def audio_of(event: dict[str, Any]) -> bytes:
    """The speech in an event; nothing where it has none, or none that can be read."""
    delta = event.get("delta")
    if event.get("type") == _AUDIO and isinstance(delta, str):
        with contextlib.suppress(binascii.Error, ValueError):
            pcm = b64decode(delta, validate=True)
            return pcm[: len(pcm) & ~1]
    return b""


def take(event: dict[str, Any], response: Response) -> bool:
    """Streams one of upstream's events into the response. Returns True where it was the last. Raises Failure."""
    kind, delta = event.get("type"), event.get("delta")
    if kind == "response.done":
        why, usage = ended(event)
        if why:
            raise Failure(f"upstream: {why}")
        response.done(usage)
        return True
    if kind == CALLED:
        name, arguments = event.get("name"), event.get("arguments")
        if isinstance(name, str) and isinstance(arguments, str):
            response.call(name, arguments, str(event.get("call_id") or ""))
    elif pcm := audio_of(event):
        response.audio(pcm)
    elif isinstance(delta, str):
        if kind == "response.output_audio_transcript.delta":
            response.transcript(delta)
        elif kind == "response.output_text.delta":
            response.text(delta)
    return False


def ended(event: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Why a response was not finished, nothing where it was, and the usage of which a ``response.done`` tells."""
    done = event.get("response")
    done = done if isinstance(done, dict) else {}
    usage, status, details = done.get("usage"), done.get("status"), done.get("status_details")
    details = details if isinstance(details, dict) else {}
    why = ""
    if status == "failed":
        why = message(details.get("error"))
    elif status in ("cancelled", "incomplete"):
        reason = details.get("reason")
        why = f"the response is {status}" + (f": {reason[:64]}" if isinstance(reason, str) else "")
    return why, usage if isinstance(usage, dict) else None


def used(event: dict[str, Any]) -> dict[str, Value | None]:
    """The tokens of which a ``response.done`` tells, as attributes of a span."""
    return tokens(ended(event)[1])


def message(error: Any) -> str:
    """What upstream says went wrong, in one short line."""
    found = error.get("message") if isinstance(error, dict) else None
    return str(found or "it failed and did not say why")[:200]
