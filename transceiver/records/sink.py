"""The interface of a call's file to the process that writes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Sink", "create"]


class Sink(Protocol):
    """One file. ``what`` is what ``counters.RECORDED`` calls its pieces."""

    what: str

    def write(self, pieces: list[Any]) -> None:
        """Appends pieces. It raises whatever keeps it from that, and is then not asked again."""

    def close(self) -> None:
        """Ends the file. It is also called after an error, and may raise."""


def create(path: Path) -> int:
    """A descriptor of a new file that its owner alone may read. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
