"""The command ``firsthop keys check``: whether the processes of this host hold the keys of its file, for whoever
rotates those of several hosts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from firsthop.rotate import taken
from firsthop.status_cli import Host
from runtime.config import load
from runtime.errors import ConfigError
from wire.keys import KeyFileError, read_text
from wire.rotation import KeyRing

__all__ = ["Report", "command", "drops"]


@dataclass(frozen=True, slots=True)
class Report:
    """The keys of ``file`` by id. ``due`` is the next step, prepare or promote, which would drop the ids ``drops``;
    ``calls`` are those of this host by the id of their key. ``asked`` answered, and ``behind`` names those of them that
    hold other keys."""

    file: str
    sealing: int
    accepted: list[int]
    due: str
    drops: list[int]
    calls: dict[str, int]
    asked: list[str]
    behind: str


def drops(ring: KeyRing) -> tuple[str, list[int]]:
    """The step that is due, and the ids of the keys that it drops."""
    due = "prepare" if ring.prepared is None else "promote"
    after = ring.prepare(datetime.now(UTC), bytes(16)) if due == "prepare" else ring.promote()
    return due, sorted({ring.sealing, *ring.accepted} - {after.sealing, *after.accepted})


def command(config: Path | None, *, as_json: bool) -> int:
    """Checks and reports. The exit code is 0 when all hold the keys, 1 when one does not, 2 for a wrong file."""
    try:
        configured = load(config)
        path = configured.cluster.keys
        ring = KeyRing.parse(read_text(path), path)
        found, behind = taken(Host(configured), ring)
    except (ConfigError, KeyFileError) as e:
        click.echo(f"firsthop: {e}", err=True)
        return 2
    calls: dict[str, int] = {}
    for scrape in found.values():
        for name, *labels in scrape.samples:
            if name == "firsthop_transceiver_key_sessions":
                calls[labels[0]] = calls.get(labels[0], 0) + int(scrape.samples[name, *labels])
    due, dropped = drops(ring)
    report = Report(str(path), ring.sealing, [*ring.accepted], due, dropped, calls, list(found), behind)
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        for line in _lines(report):
            click.echo(line)
    if behind:
        click.echo(f"firsthop: {behind}: other keys than in {path}", err=True)
    return 1 if behind else 0


def _lines(report: Report) -> list[str]:
    accepted = f", and accepted: {', '.join(map(str, report.accepted))}" if report.accepted else ""
    said = [f"{report.file}: key {report.sealing} seals{accepted}"]
    said.append(f"taken by {', '.join(report.asked)}" if report.asked else "nothing of firsthop answers on this host")
    if report.behind:
        said.pop()
    calls = sum(report.calls.get(str(key), 0) for key in report.drops)
    if report.drops:
        said.append(
            f"next: {report.due}, which drops {', '.join(map(str, report.drops))} ({calls} calls live under it)"
        )
    else:
        said.append(f"next: {report.due}")
    return said
