"""The files by which an edge's processes tell each other which transceivers there are.

The supervisor writes those of the configuration, and signaling those that it finds in the directory's store. Workers
and signaling follow both, so a change of the directory replaces no process and costs no call. Being files they need
nobody to be alive: a supervisor that takes over finds what its predecessor said, and a process that begins reads what
the others know, though the store be away. They lie beside the supervisor's other state in ``edge.run`` and are replaced
as a whole. How a transceiver is stands in neither: that is new each second, and signaling alone needs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from edge.directory import Directory, Transceiver
from runtime.followed import Followed
from runtime.logs import Log

__all__ = ["Listing", "Listings", "announce", "followed", "load", "prepare", "unlisted", "write"]


class Listing(msgspec.Struct, frozen=True):
    """The content of the file: ``Directory.present`` and ``Directory.departed``. ``beside`` are the endpoints of other
    edges behind this one's address, which tell their flows there (``edge/relay/roaming.py``)."""

    transceivers: tuple[Transceiver, ...]
    departed: tuple[Transceiver, ...] = ()
    beside: tuple[str, ...] = ()

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


class Listings:
    """The listings of both files as one. Where both have an id, the ``configured`` one counts."""

    def __init__(self, configured: Followed[Listing], found: Followed[Listing]) -> None:
        self.configured, self.found = configured, found

    @property
    def value(self) -> Listing:
        """All that they list."""
        ours, others = self.configured.value, self.found.value
        known = {transceiver.id for transceiver in ours.transceivers}
        more = tuple(transceiver for transceiver in others.transceivers if transceiver.id not in known)
        return Listing(ours.transceivers + more, ours.departed + others.departed, others.beside)

    def refresh(self) -> bool:
        """Looks at both. Returns True where that changed one."""
        return any([self.configured.refresh(), self.found.refresh()])


def unlisted(configured: Iterable[Transceiver], found: Iterable[Transceiver]) -> list[Transceiver]:
    """Those ``found`` whose id the configuration gives to another endpoint."""
    endpoints = {transceiver.id: transceiver.endpoint for transceiver in configured}
    return [each for each in found if endpoints.get(each.id, each.endpoint) != each.endpoint]


def write(path: Path, transceivers: Iterable[Transceiver], beside: Iterable[str] = ()) -> None:
    """Writes a file that lists these, the edges ``beside`` this one, and transceivers that it listed before as
    departed. Raises OSError."""
    directory = Directory()
    with contextlib.suppress(OSError, ValueError):
        load(path).fill(directory)
    directory.replace(transceivers)
    listing = Listing(tuple(directory.present.values()), tuple(directory.departed.values()), tuple(beside))
    new = path.with_name(f"{path.name}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    new.write_bytes(msgspec.json.format(msgspec.json.encode(listing)))
    new.replace(path)


def announce(path: Path, transceivers: Iterable[Transceiver], log: Log) -> str:
    """Writes the file of the configuration's. Returns the path that children follow; or an empty string, with a line in
    the log, where the file cannot be written."""
    try:
        write(path, transceivers)
    except OSError as e:
        log.warning("a change of the transceivers will replace workers and signaling", why=f"{path}: {e.strerror}")
        return ""
    return str(path)


def prepare(path: Path, log: Log, *, keep: bool) -> str:
    """Makes the file of those that are found, or leaves what a process before this one found where ``keep`` says so.
    Returns the path, or an empty string, with a line in the log, where that cannot be."""
    try:
        if not (keep and path.exists()):
            write(path, ())
    except OSError as e:
        log.warning("transceivers in the directory's store will not be used", why=f"{path}: {e.strerror}")
        return ""
    return str(path)
