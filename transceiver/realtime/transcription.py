"""The events that tell a client the words in a user's speech: some while it is spoken, all when it is known. Pure."""

from __future__ import annotations

from typing import Any

from transceiver.realtime.items import Items

__all__ = ["completed", "delta"]

_TYPE = "conversation.item.input_audio_transcription"


def delta(items: Items, item: str, more: str, *, spoken: bool) -> dict[str, Any] | None:
    """The event for ``more`` words in the item of that id, which is still ``spoken`` or has no words yet; else None."""
    entry = items.get(item)
    if not (item and more) or not (spoken or (entry is not None and entry.item.role == "user" and not entry.item.text)):
        return None
    return {"type": f"{_TYPE}.delta", "item_id": item, "content_index": 0, "delta": more}


def completed(items: Items, item: str, text: str, rate_hz: int) -> dict[str, Any] | None:
    """The event for the words in the user's item of that id, which has them from now on; None where there is none.
    ``rate_hz`` is that of its PCM."""
    entry = items.get(item)
    if entry is None or entry.item.role != "user":
        return None
    index = entry.transcribed(text)
    items.weigh(entry)
    usage = {"type": "duration", "seconds": len(entry.item.pcm) / (2 * rate_hz)}
    what = {"item_id": item, "content_index": index, "transcript": text, "usage": usage}
    return {"type": f"{_TYPE}.completed", **what}
