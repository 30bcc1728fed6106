"""The Realtime events that a call sees on its ``oai-events`` channel, each as a map ready for JSON."""

from __future__ import annotations

import json
import secrets
from typing import Any

__all__ = ["CHANNEL", "decode", "encode", "error", "session_created", "speech_started", "speech_stopped"]

CHANNEL = "oai-events"


def session_created(call: str, agent: str) -> dict[str, Any]:
    """The first event on the channel."""
    audio = {"input": {"format": {"type": "audio/pcm", "rate": 24000}}, "output": {"voice": agent}}
    session = {"object": "realtime.session", "id": call, "type": "realtime", "model": agent, "audio": audio}
    return {"type": "session.created", "session": session}


def speech_started(audio_start_ms: int) -> dict[str, Any]:
    """The caller began to speak, so many ms into the call's audio."""
    return {"type": "input_audio_buffer.speech_started", "audio_start_ms": audio_start_ms}


def speech_stopped(audio_end_ms: int) -> dict[str, Any]:
    """The caller's turn ended."""
    return {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": audio_end_ms}


def error(message: str, *, code: str, event_id: str | None = None) -> dict[str, Any]:
    """What could not be done; ``event_id`` is that of the client's event, if it had one."""
    what = {"type": "invalid_request_error", "code": code, "message": message, "param": None, "event_id": event_id}
    return {"type": "error", "error": what}


def encode(event: dict[str, Any]) -> str:
    """JSON with an ``event_id`` of its own."""
    return json.dumps({"event_id": "event_" + secrets.token_urlsafe(12), **event})


def decode(message: str | bytes) -> dict[str, Any] | None:
    """The client's event, or None unless it is a JSON object with a type."""
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None
