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
from runtime.followed import Followed
from runtime.logs import Log

__all__ = ["Listing", "announce", "followed", "load"]


class Listing(msgspec.Struct, frozen=True):
    """The content of the file: ``Directory.present`` and ``Directory.departed``."""

    transceivers: tuple[Transceiver, ...]
    departed: tuple[Transceiver, ...] = ()

    def fill(self, directory: Directory) -> None:
        """Gives the directory this content. Raises ValueError, and changes nothing, where two have one id."""
        directory.replace(self.transceivers, self.departed)


def load(path: Path) -> Listing:
    """Reads the file. Raises OSError, or ValueError where it is no listing."""
    listing = msgspec.json.decode(path.read_bytes(), type=Listing)
    listing.fill(Directory())
    return listing


def followed(path: str, start: Iterable[Transceiver], log: Log) -> Followed[Listing]:
    """The file as a child follows it, beginning with ``start``; where ``path`` is empty, that is all."""
    return Followed("list of transceivers", load, Path(path) if path else None, log=log, start=Listing(tuple(start)))


def announce(path: Path, transceivers: Iterable[Transceiver], log: Log) -> str:
    """Writes a file that lists these, and those that it listed before as departed. Returns the path that children
    follow; or an empty string, with a line in the log, where the file cannot be written."""
    directory = Directory()
    with contextlib.suppress(OSError, ValueError):
        load(path).fill(directory)
    directory.replace(transceivers)
    listing = Listing(tuple(directory.present.values()), tuple(directory.departed.values()))
    new = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(msgspec.json.format(msgspec.json.encode(listing)))
        new.replace(path)
    except OSError as e:
        log.warning("a change of the transceivers will replace workers and signaling", why=f"{path}: {e.strerror}")
        return ""
    return str(path)
