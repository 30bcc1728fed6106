"""Files that are written beside the media: a thread writes, and nobody waits for it.

What is to be written waits in a queue of bounded size. A disk that is slow or full costs what does not fit, which is
counted and said once for each file; the call goes on.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from pathlib import Path
from typing import Any, Protocol

from firsthop import logs
from transceiver.counters import RECORDED

__all__ = ["Sink", "Writer", "create"]

_MOST_BYTES = 64 << 20  # that wait: a minute of ten calls at 24 kHz
_EVERY_S = 0.25
_NICER = 5
_GOODBYE_S = 5.0


class Sink(Protocol):
    """One file, used by the writer's thread alone. ``what`` is what ``RECORDED`` calls its pieces."""

    what: str
    path: Path

    def write(self, pieces: list[Any]) -> None:
        """Appends them. Raises whatever keeps it from that; it is not asked again."""

    def close(self) -> None:
        """Nothing more comes; also called after an error, and may raise."""


def create(path: Path) -> int:
    """A descriptor of a new file that its owner alone may read. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


class Writer:
    """One for all files of a process. ``put`` and ``finish`` belong to one thread, and return at once."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Sink, Any]] = deque()  # a piece of None is the end
        self._given = 0  # bytes, counted by whoever puts
        self._taken = 0  # and by the thread: so neither needs a lock
        self._failed: set[Sink] = set()
        self._over = threading.Event()
        self._log = logs.get()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def put(self, sink: Sink, piece: Any, size: int) -> bool:
        """Has ``piece``, of so many bytes, written; False where too much waits."""
        if self._given - self._taken > _MOST_BYTES:
            RECORDED[sink.what + "_late"] += 1
            return False
        self._given += size
        self._queue.append((sink, (piece, size)))
        return True

    def finish(self, sink: Sink) -> None:
        """Nothing more comes for it."""
        self._queue.append((sink, None))

    def close(self) -> None:
        """Writes what waits, if that does not take long."""
        self._over.set()
        self._thread.join(_GOODBYE_S)

    # --- in the thread

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICER)
        while not self._over.wait(_EVERY_S):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        waiting: dict[Sink, list[Any]] = {}
        ended: list[Sink] = []
        taken = 0
        for _ in range(len(self._queue)):
            sink, put = self._queue.popleft()
            if put is None:
                ended.append(sink)
            else:
                waiting.setdefault(sink, []).append(put[0])
                taken += put[1]
        for sink, pieces in waiting.items():
            self._write(sink, pieces)
        for sink in ended:
            self._end(sink)
        self._taken += taken

    def _write(self, sink: Sink, pieces: list[Any]) -> None:
        if sink not in self._failed:
            try:
                sink.write(pieces)
            except Exception as e:  # of a disk, a codec or an event: one file is lost, and not this thread
                self._failed.add(sink)
                self._log.error("a file is not written any further", path=str(sink.path), why=_why(e))
        RECORDED[sink.what + ("_failed" if sink in self._failed else "_written")] += len(pieces)

    def _end(self, sink: Sink) -> None:
        try:
            sink.close()
        except Exception as e:
            if sink not in self._failed:
                self._log.error("a file has no end", path=str(sink.path), why=_why(e))
        self._failed.discard(sink)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or repr(error)
