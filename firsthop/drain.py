"""The command ``firsthop drain``: it empties this host's transceivers or its edge, and shows how far that is.

It tells the processes to end, as ``systemctl stop`` does; they take no new calls, and bring those that they have to an
end first: a transceiver hands them over to others (docs/drain.md).
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from firsthop.options import config_option
from firsthop.status_cli import scrape
from runtime import ports
from runtime.address import Address
from runtime.config import Config, load
from runtime.errors import ConfigError

__all__ = ["drain", "is_service", "of_unit", "services"]

_EVERY_S = 0.5
_PID = ("firsthop_process_id",)
_MOVED, _ALL = (("firsthop_transceiver_drain_calls", which) for which in ("moved", "all"))


def services(config: Config, what: str) -> list[Address]:
    """Where the metrics are of each service of that kind that this host may have; one may be named twice."""
    if what == "edge":
        return [config.edge.metrics]
    return [config.transceiver.metrics, *(ports.of_instance(number) for number in ports.INSTANCES)]


def of_unit(pid: int) -> str:
    """The unit of systemd's that the process is the main one of; empty where it is none."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            unit = line.rpartition("/")[2]
            if unit.startswith("firsthop-") and unit.endswith(".service"):
                return unit
    return ""


@click.command()
@config_option
@click.argument("what", type=click.Choice(["transceiver", "edge"]), default="transceiver")
def drain(config: Path | None, what: str) -> None:
    """Take this host's transceivers, or its edge, out of service: new calls go elsewhere, and those that they have are
    handed over or end, within transceiver.drain_s or edge.drain_s. Returns when they have ended.

    Ctrl-C ends this command only. The exit code is 0 when they have ended, 1 when nothing of that kind runs here or it
    is another user's, 2 for a wrong configuration.
    """
    try:
        places = services(load(config), what)
    except ConfigError as e:
        click.echo(f"firsthop: {e}", err=True)
        sys.exit(2)
    running = _running(places, what)
    if not running:
        click.echo(f"firsthop: no {what} answers on this host: is this its --config?", err=True)
        sys.exit(1)
    try:
        for pid in running:
            _end(pid)
    except PermissionError:
        click.echo(f"firsthop: the {what} is another user's, who may end it, as root may", err=True)
        sys.exit(1)
    with suppress(KeyboardInterrupt):
        _follow(running, what)


def is_service(command: list[str], what: str) -> bool:
    """Whether a process with that command line is such a service, and not one of its children."""
    return what in command[1:] and any(part.endswith("firsthop") for part in command)


def _running(places: list[Address], what: str) -> dict[int, Address]:
    """The pids of the services of that kind that answer."""
    found: dict[int, Address] = {}
    for place in places:
        answer = scrape([place])
        pid = int(answer.samples.get(_PID, 0)) if answer is not None else 0
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_text().split("\0") if pid else []  # in a container it is 1
            if is_service(command, what):
                found.setdefault(pid, place)
    return found


def _end(pid: int) -> None:
    """Tells a service to end. What systemd started is told by systemd, which would start it again otherwise."""
    unit = of_unit(pid)
    if unit:
        subprocess.run(["systemctl", "stop", "--no-block", unit], check=True)  # noqa: S603, S607
    else:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _follow(running: dict[int, Address], what: str) -> None:
    """Says how far it is, whenever that changes, until all have ended."""
    said = ""
    ends = {}
    for pid, place in running.items():
        with suppress(ProcessLookupError):
            ends[os.pidfd_open(pid)] = place
    while left := [ends[fd] for fd in ends.keys() - set(select.select(list(ends), [], [], 0)[0])]:
        now = f"{len(left)} of {len(running)} still end" if what == "edge" else _progress(left)
        if now and now != said:
            click.echo(now)
            said = now
        time.sleep(_EVERY_S)
    click.echo("ended")


def _progress(places: list[Address]) -> str:
    """How many calls have been handed over; nothing where nobody says it, because all are about to be gone."""
    moved = calls = said = 0
    for place in places:
        # With a supervisor the calls are those of the processes, whose metrics are from one port up.
        for port in range(place.port, place.port + 1 + 256):
            answer = scrape([Address(f"{place.host}:{port}")])
            if answer is None and port > place.port:
                break
            if answer is not None and _MOVED in answer.samples:
                said += 1
                moved += int(answer.samples.get(_MOVED, 0))
                calls += int(answer.samples.get(_ALL, 0))
    return f"{moved} of {calls} calls handed over" if said else ""
