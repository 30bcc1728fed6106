"""The file by which an edge's supervisor tells its children which transceivers there are.

Workers and signaling follow it, so a change of the directory replaces no process and costs no call. Being a file it
needs nobody to be alive: a supervisor that takes over finds what its predecessor said, and a worker that begins reads
what the others know. It lies beside the supervisor's other state in ``edge.run`` and is replaced as a whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from edge.directory import Directory, Transceiver
from wire.keys import Log, file_state

__all__ = ["DirectoryFile", "announce", "publish"]


class _Listing(msgspec.Struct):
    transceivers: list[Transceiver]
    departed: list[Transceiver] = []


class DirectoryFile:
    """The source of ``directory`` that follows the file at ``path``, from now on; none where that is empty. Where the
    file is missing or broken the directory stays as it is, and the log says so once. A change waits for ``patience``
    more looks before it is taken."""

    def __init__(self, path: str, directory: Directory, log: Log, *, patience: int = 0) -> None:
        self._path = Path(path) if path else None
        self._directory = directory
        self._log = log
        self._seen: tuple[int, ...] | None = ()
        self._pending: tuple[int, ...] | None = ()
        self._patience = self._left = 0
        self.refresh()
        self._patience = patience

    def refresh(self) -> bool:
        """Looks at the file, and has the directory say what it says where it is not as it was at the last look. True
        when it was read."""
        if self._path is None:
            return False
        seen = file_state(self._path)
        if seen == self._seen:
            return False
        if seen != self._pending:
            self._pending, self._left = seen, self._patience
        if self._left > 0:
            self._left -= 1
            return False
        self._seen = seen
        try:
            _read(self._path, self._directory)
        except (OSError, ValueError, RecursionError) as e:
            self._log.warning("list of transceivers not taken, it stays as it was", file=str(self._path), why=str(e))
            return False
        return True


def announce(path: Path, transceivers: Iterable[Transceiver], log: Log) -> str:
    """Has the file list these, and those that were listed before as departed. Returns what children follow: its
    path, or nothing, with a line in the log, where it cannot be written."""
    directory = Directory()
    with contextlib.suppress(OSError, ValueError, RecursionError):
        _read(path, directory)
    directory.replace(transceivers)
    try:
        publish(path, directory)
    except OSError as e:
        log.warning("a change of the transceivers will replace workers and signaling", file=str(path), why=e.strerror)
        return ""
    return str(path)


def publish(path: Path, directory: Directory) -> None:
    """Replaces the file: who reads it sees the old listing or the new one. Raises OSError."""
    listing = _Listing(list(directory.present.values()), list(directory.departed.values()))
    new = path.with_name(f"{path.name}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    new.write_bytes(msgspec.json.format(msgspec.json.encode(listing)))
    new.replace(path)


def _read(path: Path, directory: Directory) -> None:
    listing = msgspec.json.decode(path.read_bytes(), type=_Listing)
    directory.replace(listing.transceivers, listing.departed)
