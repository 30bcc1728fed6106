"""The way from the media loop to the files: nothing here waits for a disk.

What is to be written waits in a queue of bounded size, from which a thread passes it on to a process of its own
(``transceiver/records/scribe.py``). A disk that is slow or full costs what does not fit, which is counted and said once
for each file; the call goes on.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime import logs
from transceiver.counters import RECORDED
from transceiver.records.scribe import receive, send

__all__ = ["File", "Writer"]

_MOST_BYTES = 64 << 20  # that wait: a minute of ten calls at 24 kHz
_BATCH_BYTES = 1 << 20  # is made in one go, with Python's lock held
_EVERY_S = 0.25
_GOODBYE_S = 5.0


@dataclass(frozen=True, eq=False, slots=True)
class File:
    """A file to be written: a recording of ``rate_hz``, or a transcript where that is 0. The modules of each say what
    its pieces are."""

    path: Path
    rate_hz: int = 0

    @property
    def what(self) -> str:
        return "frame" if self.rate_hz else "event"


class Writer:
    """The writer of all files of a process. ``put`` and ``finish`` belong to one thread, and return at once."""

    def __init__(self) -> None:
        self._queue: deque[tuple[File, Any, int]] = deque()  # a piece of None is the end
        self._given = 0  # bytes, counted by whoever puts
        self._taken = 0  # and by the thread: so neither needs a lock
        self._numbers: dict[File, int] = {}  # of those that the process has open
        self._lost: set[File] = set()  # with a process that died
        self._last = 0
        self._over = threading.Event()
        self._log = logs.get()
        self.process = _started()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def put(self, file: File, piece: Any, size: int) -> bool:
        """Has ``piece``, of ``size`` bytes, written. Returns False where too much waits."""
        if self._given - self._taken > _MOST_BYTES:
            RECORDED[file.what + "_late"] += 1
            return False
        self._given += size
        self._queue.append((file, piece, size))
        return True

    def finish(self, file: File) -> None:
        """Ends the file: nothing more comes for it."""
        self._queue.append((file, None, 0))

    def close(self) -> None:
        """Writes what waits, if that does not take long."""
        self._over.set()
        self._thread.join(_GOODBYE_S)

    # --- in the thread

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._drain()
        self._drain()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _drain(self) -> None:
        while self._queue:
            pieces: dict[File, list[Any]] = {}
            ended: set[File] = set()
            size = 0
            while self._queue and size < _BATCH_BYTES:
                file, piece, bytes_ = self._queue.popleft()
                size += bytes_
                pieces.setdefault(file, [])
                if piece is None:
                    ended.add(file)
                else:
                    pieces[file].append(piece)
            self._pass_on(pieces, ended)
            self._taken += size

    def _pass_on(self, pieces: dict[File, list[Any]], ended: set[File]) -> None:
        batch = [
            (self._number(file), str(file.path), file.rate_hz, waiting, file in ended)
            for file, waiting in pieces.items()
            if file not in self._lost
        ]
        for file in pieces.keys() & self._lost:
            RECORDED[file.what + "_failed"] += len(pieces[file])
        try:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            send(self.process.stdin, batch)
            counts, troubles = receive(self.process.stdout)
        except (OSError, EOFError, ValueError):
            self._replace(pieces)
        else:
            self._account(counts, troubles)
        for file in ended:
            self._numbers.pop(file, None)
            self._lost.discard(file)

    def _number(self, file: File) -> int:
        if file not in self._numbers:
            self._last += 1
            self._numbers[file] = self._last
        return self._numbers[file]

    def _account(self, counts: dict[str, int], troubles: dict[int, str]) -> None:
        RECORDED.update(counts)
        if troubles:
            files = {number: file for file, number in self._numbers.items()}
            for number, why in troubles.items():
                self._log.error("a file is not written any further", path=str(files[number].path), why=why)

    def _replace(self, pieces: dict[File, list[Any]]) -> None:
        """Starts another process after one that died. The files that it had open stay as they are."""
        for file in pieces.keys() - self._lost:
            RECORDED[file.what + "_failed"] += len(pieces[file])
        self._lost.update(self._numbers)
        self._numbers.clear()
        self._log.error("what writes transcripts and recordings died", files=len(self._lost))
        _end(self.process)
        self.process = _started()


def _started() -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "transceiver.records.scribe"]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        with contextlib.suppress(OSError):
            stream.close()
