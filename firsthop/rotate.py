"""The command ``firsthop keys rotate``: a new ufrag key for the cluster, one step at a time, each after all processes
here took the last.

Before a step and after it, every process of this host that answers must hold exactly the keys of the file. So nobody
seals under a key that another does not open yet, nor under one that the next step drops.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from firsthop.status import Scrape
from firsthop.status_cli import Host
from runtime import secretfile
from runtime.config import load
from runtime.errors import ConfigError
from wire.exposure import exposure
from wire.keys import KeyFileError, read_text
from wire.rotation import KeyRing

__all__ = ["Report", "RotationRefused", "command", "rotate", "taken"]

_PATIENCE_S = 10.0
_LOOK_EVERY_S = 0.2


class RotationRefused(Exception):
    """The error that the rotation does not go on, for a reason that one line tells."""


@dataclass(slots=True)
class Step:
    """One step. ``name`` is prepare or promote, ``key`` the id that it is about; ``cut_off`` calls were under
    ``dropped`` ids."""

    name: str
    key: int
    dropped: list[int]
    cut_off: int


@dataclass(slots=True)
class Report:
    """The steps that were done, also where not all were. ``asked`` are the processes that answered here, ``unasked``
    those that cannot be asked from here."""

    file: str
    unasked: list[str]
    asked: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    sealing: int | None = None
    accepted: list[int] = field(default_factory=list)
    next: str | None = None
    error: str | None = None

    def knows(self, ring: KeyRing) -> None:
        """Takes note that the file holds these keys now."""
        self.sealing, self.accepted = ring.sealing, [*ring.accepted]

    def as_json(self) -> dict[str, Any]:
        """The report for ``--json``."""
        return {"ok": self.error is None, **asdict(self)}

    def lines(self) -> list[str]:
        """The report for people."""
        said = []
        for step in self.steps:
            if step.name == "prepare":
                said.append(f"prepared: key {step.key} is accepted, and seals nothing yet")
            else:
                said.append(
                    f"promoted: key {step.key} seals; key {self.accepted[0]} is accepted until the next rotation"
                )
            if step.dropped:
                said[-1] += f"; dropped: {_keys(step.dropped)}"
                said[-1] += f", and {_calls(step.cut_off)} with it" if step.cut_off else ""
        if self.steps and self.error is None:
            taken = f"taken by {', '.join(self.asked)}" if self.asked else "nothing of firsthop answers on this host"
            said.append(taken + (f"; not asked: {', '.join(self.unasked)}" if self.unasked else ""))
        if self.next:
            said.append(f"next: {self.next}")
        return said


def rotate(report: Report, host: Host, *, step: bool, force: bool) -> None:
    """Rotates the keys of ``report.file`` and writes down in ``report`` what became of it: both steps, or with ``step``
    the one that is due. ``force`` drops a key under which calls live.

    Raises RotationRefused, or KeyFileError for a file that cannot be used.
    """
    path = Path(report.file)
    read_text(path)
    if host.unasked and not step:
        who = ", ".join(host.unasked)
        raise RotationRefused(
            f"{who} cannot be asked from here: use --step, and copy {path} to every host after each one"
        )
    try:
        with secretfile.locked(path):
            _rotate(report, path, host, step=step, force=force)
    except BlockingIOError:
        raise RotationRefused(f"another rotation of {path} is under way") from None
    except OSError as e:
        raise RotationRefused(f"{path}: {e.strerror}") from None


def _rotate(report: Report, path: Path, host: Host, *, step: bool, force: bool) -> None:
    ring = KeyRing.parse(read_text(path), path)
    report.knows(ring)
    found, behind = taken(host, ring)
    if behind:
        raise RotationRefused(
            f"{behind}: other keys than in {path} for {_PATIENCE_S:.0f} s now, so nothing was changed"
        )
    while True:
        promoting = ring.prepared is not None
        after = ring.promote() if promoting else ring.prepare(datetime.now(UTC), secrets.token_bytes(16))
        dropped = sorted({ring.sealing, *ring.accepted} - {after.sealing, *after.accepted})
        live = _live(found, dropped)
        if live and not force:
            why = f"{_calls(live)} under {_keys(dropped)}, which this would drop"
            raise RotationRefused(f"{why}: run it when they have ended, or cut them off with --force")
        secretfile.replace(path, after.text())
        ring = after
        key = ring.sealing if promoting else ring.accepted[0]
        report.steps.append(Step("promote" if promoting else "prepare", key, dropped, live))
        report.knows(ring)
        found, behind = taken(host, ring, found)
        report.asked = list(found)
        if behind:
            then = "" if promoting else ", so it does not seal: run this again to go on"
            raise RotationRefused(f"{behind}: key {key} was not taken within {_PATIENCE_S:.0f} s{then}")
        if step or promoting:
            break
    if step:
        report.next = f"copy {path} to every other host"
        if not promoting:
            report.next += f', see firsthop_ufrag_key{{id="{key}"}} in each process there, and run this again'


def taken(host: Host, ring: KeyRing, known: Iterable[str] = ()) -> tuple[dict[str, Scrape], str]:
    """Waits, within limits, until all processes that answer here, and all the ``known``, hold the keys of ``ring``.
    Returns the processes that answer, and the names of those that do not hold these keys."""
    deadline = time.monotonic() + _PATIENCE_S
    behind = set(known)
    while True:
        found, _ = host.look()
        # Who was seen once must be heard of: a process that is slow to answer is no process that has ended.
        behind = {name for name in behind | found.keys() if name not in found or not _holds(found[name], ring)}
        if not behind or time.monotonic() > deadline:
            return found, ", ".join(sorted(behind))
        time.sleep(_LOOK_EVERY_S)


def _holds(scrape: Scrape, ring: KeyRing) -> bool:
    held = {(key[1], key[2]) for key in scrape.samples if key[0] == "firsthop_ufrag_key"}
    return held == {(str(ring.sealing), "sealing"), *((str(key), "accepted") for key in ring.accepted)}


def _live(found: Mapping[str, Scrape], keys: Iterable[int]) -> int:
    """The number of calls that the transceivers here hold under these keys."""
    names = [("firsthop_transceiver_key_sessions", str(key)) for key in keys]
    return sum(int(scrape.samples.get(name, 0)) for scrape in found.values() for name in names)


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"


def _keys(ids: list[int]) -> str:
    return f"key{'' if len(ids) == 1 else 's'} {', '.join(map(str, ids))}"


def command(config: Path | None, file: Path | None, *, step: bool, force: bool, as_json: bool) -> int:
    """Rotates and reports. The exit code is 0, or 1 where it was refused or stopped half-way, or 2 for a wrong file."""
    try:
        configured = load(config)
        host = Host(configured)
        report = Report(str(file or configured.cluster.keys), host.unasked)
        try:
            rotate(report, host, step=step, force=force)
        except RotationRefused as e:
            report.error = str(e)
    except (ConfigError, KeyFileError) as e:
        click.echo(f"firsthop: {e}", err=True)
        return 2
    if not report.error and (why := exposure(Path(report.file))):
        click.echo(f"firsthop: {report.file}: {why}", err=True)
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        for line in report.lines():
            click.echo(line)
    if report.error:
        click.echo(f"firsthop: {report.error}", err=True)
    return 1 if report.error else 0
