"""Standard error as a place for logs that must never stop what they are about.

A disk may be full, a reader may have gone, and one that stands still lets its pipe fill up, where a write waits for
ever. Media must not stop for any of that, so what cannot be written now is lost.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from io import UnsupportedOperation
from typing import TextIO

__all__ = ["LossyStream"]

_PIECE_BYTES = 4096  # PIPE_BUF: a pipe that can be written to has room for as much


class LossyStream:
    """A stream that writes to the descriptor under ``stream`` (None: nowhere), and neither raises nor waits."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes what there is room for. Returns the length of ``text`` in any case."""
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._write(self._stream, text)
        return len(text)

    def flush(self) -> None:
        """Does nothing, because nothing is kept back."""

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            # Asked each time: a stream that was closed says so, and its number may be somebody else's by now.
            fd = stream.fileno()
        except UnsupportedOperation:  # text in memory
            stream.write(text)
            return
        room = select.poll()
        room.register(fd, select.POLLOUT)
        data = text.encode(errors="backslashreplace")
        while data and any(event & select.POLLOUT for _, event in room.poll(0)):
            data = data[os.write(fd, data[:_PIECE_BYTES]) :]
