"""The fitting of a server event that is larger than the client takes (RFC 8841 section 6): it goes in pieces, or an
error goes in its place.
"""

from __future__ import annotations

import json
from typing import Any

from transceiver.realtime.items import new_id

__all__ = ["error", "fit"]

_AUDIO = "response.output_audio.delta"
_AUDIO_UNIT = 8  # characters of base64: three samples


def fit(event: dict[str, Any], text: str, most_bytes: int, asked: str | None) -> list[str]:
    """``text``, which is ``event`` as JSON, as one or more events of at most ``most_bytes``, in order. A delta becomes
    several. What cannot be divided becomes an error that names it, and the client's event ``asked`` where there was
    one. The result is empty where even that is too large."""
    size = len(text) if text.isascii() else len(text.encode())
    if size <= most_bytes:
        return [text]
    kind, delta = str(event.get("type")), event.get("delta")
    if kind.endswith(".delta") and isinstance(delta, str):
        room = most_bytes - len(json.dumps({**event, "event_id": new_id("event"), "delta": ""}))
        if pieces := _divided(delta, room, _AUDIO_UNIT if kind == _AUDIO else 1):
            ids = [event.get("event_id"), *(new_id("event") for _ in pieces[1:])]
            return [json.dumps({**event, "event_id": i, "delta": p}) for i, p in zip(ids, pieces, strict=True)]
    why = f"'{kind[:64]}' has {size} bytes, and your a=max-message-size (64 KiB where unsaid) allows {most_bytes} here"
    errors = (error("event_too_large", why, event_id) for event_id in (asked, None))
    told = (json.dumps({"event_id": new_id("event"), **event}) for event in errors)
    return next(([said] for said in told if len(said) <= most_bytes), [])


def error(code: str, message: str, event_id: str | None = None) -> dict[str, Any]:
    """An ``error`` event, without an id of its own, for a fault that is not the client's."""
    what = {"type": "server_error", "code": code, "message": message, "param": None, "event_id": event_id}
    return {"type": "error", "error": what}


def _divided(delta: str, room: int, unit: int) -> list[str]:
    """Pieces whose JSON has at most ``room`` characters without its quotes; none where one unit is too large."""
    if len(json.dumps(delta)) - 2 <= room:
        return [delta]
    middle = len(delta) // 2 // unit * unit
    if not middle:
        return []
    before, after = _divided(delta[:middle], room, unit), _divided(delta[middle:], room, unit)
    return [*before, *after] if before and after else []
