"""The transcript of a call: a file of JSON Lines, one event a line, in the order in which they came.

A line is ``{"at", "ms", "from", "event"}``: the time of day in UTC (ISO 8601), milliseconds since the call's media was
up, "server" or "client", and the event, with sizes in place of audio and pictures. A client's text that is not JSON is
``{"bytes"}``, its length; one that is longer than a megabyte has its type as well.
"""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transceiver.records.sink import create

__all__ = ["Transcript", "slim"]

_MOST_BYTES = 64 << 20  # of one file: a client may say what it likes


class Transcript:
    """A ``Sink`` of (Unix time, ms, who, text of the event as it was sent)."""

    what = "event"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._written = 0

    def write(self, pieces: list[tuple[float, int, str, str | bytes]]) -> None:
        """Appends events. Raises OSError."""
        if self._descriptor is None:
            self._descriptor = create(self.path)
        lines = "".join(_line(*piece) for piece in pieces).encode("utf-8", "backslashreplace")
        if self._written + len(lines) > _MOST_BYTES:
            raise OSError(errno.EFBIG, f"it has {_MOST_BYTES >> 20} MiB, and may not have more")
        self._written += len(lines)
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def close(self) -> None:
        """Ends the file. Raises OSError."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _line(at: float, ms: int, who: str, text: str | bytes) -> str:
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"at": when, "ms": ms, "from": who}
    try:
        written = json.dumps({**line, "event": slim(json.loads(text))}, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        written = json.dumps({**line, "event": {"bytes": len(text)}})
    return written + "\n"


def slim(event: Any) -> Any:
    """The event with ``{"bytes"}`` in place of audio in base64 and of pictures in data URLs."""
    if isinstance(event, list):
        return [slim(each) for each in event]
    if not isinstance(event, dict):
        return event
    speech = str(event.get("type")).endswith("audio.delta")
    return {key: _kept(key, value, speech) for key, value in event.items()}


def _kept(key: str, value: Any, speech: bool) -> Any:
    if isinstance(value, str):
        if key == "audio" or (key == "delta" and speech):
            return {"bytes": len(value) * 3 // 4}
        if key == "image_url" and value.startswith("data:"):
            return {"bytes": (len(value) - value.find(",") - 1) * 3 // 4}
    return slim(value)
