"""The ledger on disk, for the signaling process that comes after this one.

The file has a line for each call that begins or ends, and is written again from the start once most of it is history.
Where it cannot be written, limits begin anew with each process, and a line in the log says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from edge.signaling.ledger import Held
from runtime.logs import Log

__all__ = ["Journal"]

_SPARE_LINES = 10_000


class Journal:
    """The file at ``path``; ``held`` is what it said at the start."""

    def __init__(self, path: Path, log: Log) -> None:
        self._path = path
        self._log = log
        self._fd = -1
        self._lines = 0
        self.held: dict[str, Held] = _read(path)
        self._begin(self.held)

    def note(self, ufrag: str, held: Held | None) -> None:
        """Notes a call that begins, or, with None, one that ends."""
        if held is None:
            self.held.pop(ufrag, None)
        else:
            self.held[ufrag] = held
        if self._fd == -1:
            return
        self._lines += 1
        if self._lines > _SPARE_LINES + 2 * len(self.held):
            self._begin(self.held)
            return
        try:
            os.write(self._fd, _line(ufrag, held))
        except OSError as e:
            self._give_up(e)

    def close(self) -> None:
        """Closes the file, which stays for the next process."""
        if self._fd != -1:
            os.close(self._fd)
            self._fd = -1

    def _begin(self, held: Mapping[str, Held]) -> None:
        self.close()
        new = self._path.with_name(self._path.name + ".new")
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, b"".join(_line(ufrag, each) for ufrag, each in held.items()))
                new.rename(self._path)
            except OSError:
                os.close(fd)
                raise
        except OSError as e:
            self._give_up(e)
        else:
            self._fd = fd
            self._lines = len(held)

    def _give_up(self, e: OSError) -> None:
        self.close()
        self._log.warning("calls are not written down: limits begin anew when signaling does", why=str(e))


def _line(ufrag: str, held: Held | None) -> bytes:
    fields = None if held is None else [held.key, held.token, held.transceiver, held.socket]
    return json.dumps([ufrag, fields]).encode() + b"\n"


def _read(path: Path) -> dict[str, Held]:
    held: dict[str, Held] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return held
    for line in lines:
        try:
            ufrag, fields = json.loads(line)
            held.pop(ufrag, None)
            if fields is not None:
                held[ufrag] = Held(str(fields[0]), str(fields[1]), int(fields[2]), bool(fields[3]))
        except (ValueError, TypeError, LookupError):
            continue  # half a line, of a process that was killed while it wrote
    return held
