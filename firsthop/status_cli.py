"""The command ``firsthop status``: it asks every process of this host for its metrics, and says how the host is."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from firsthop.options import config_option
from firsthop.status import Scrape, Status, compare, read, worker_cpus
from firsthop.status_view import view
from runtime import ports
from runtime.address import Address
from runtime.config import Config, load
from runtime.errors import ConfigError

__all__ = ["Host", "scrape", "status"]

_PATIENCE_S = 2.0
# No proxy: what is asked is this host.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Host:
    """The processes that a configuration puts on this host. ``unasked`` are the others that it names: those on other
    hosts, and those whose metrics' address it does not tell. Raises ConfigError."""

    def __init__(self, config: Config) -> None:
        self._edge = config.edge.metrics
        self._signaling = ports.signaling(self._edge)
        self._gateway = config.edge.backbone is not None
        # Hosts may share one file: the edge belongs to the one that has its address. It does not start without
        # transceivers, so where none is named no edge is meant to run.
        self._edge_expected = bool(config.edge.transceivers) and _is_here(config.edge.media.host)
        ours = {each.id: each for each in config.transceiver.processes}
        peers = {peer.id: peer.endpoint for peer in config.edge.transceivers}
        if not peers:
            peers = {number: each.endpoint for number, each in ours.items()}
        self._transceivers: dict[str, list[Address]] = {}
        self.unasked: list[str] = []
        if not self._edge_expected and any(endpoint.address for endpoint in peers.values()):
            self.unasked.append("the edge")
        for number, endpoint in peers.items():
            if endpoint.address is not None and not _is_here(endpoint.address.host):
                self.unasked.append(f"transceiver-{number}")
                continue
            places = [ours[number].metrics] if number in ours else []
            if number in ports.INSTANCES:
                places.append(ports.of_instance(number))
            if places:
                self._transceivers[f"transceiver-{number}"] = places
            else:
                self.unasked.append(f"transceiver-{number}")

    def look(self) -> tuple[dict[str, Scrape], dict[str, str]]:
        """The metrics of each process that answers, and the addresses of those that should answer."""
        supervisor = scrape([self._edge])
        edge = {"signaling": self._signaling}
        workers = worker_cpus(supervisor)
        edge |= {f"worker-{index}": ports.worker(self._edge, index) for index in workers}
        if workers and self._gateway:
            edge["gateway"] = ports.worker(self._edge, len(workers))
        asked = {name: [place] for name, place in edge.items()} | self._transceivers
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = {"supervisor": supervisor, **dict(zip(asked, pool.map(scrape, asked.values()), strict=True))}
        expected = {"supervisor": [self._edge], **asked}
        if not self._edge_expected and supervisor is None:
            expected = dict(self._transceivers)
        found = {name: scrape for name, scrape in answers.items() if scrape is not None}
        return found, {name: str(places[0]) for name, places in expected.items()}

    def watch(self, interval_s: float, stop: threading.Event) -> Iterator[Status]:
        """A status each ``interval_s`` seconds, with the rates of that time, until ``stop`` is set."""
        before, _ = self.look()
        due = time.monotonic()
        while True:
            due = max(due + interval_s, time.monotonic())
            if stop.wait(due - time.monotonic()):
                return
            after, expected = self.look()
            yield compare(before, after, expected)
            before = after

    def totals(self) -> Status:
        """A status at once, in which every rate is 0."""
        after, expected = self.look()
        return compare({}, after, expected)

    def nothing(self) -> str:
        """The line that says that nothing runs here."""
        return f"nothing of firsthop answers on this host (edge.metrics {self._edge}): is this its --config?"


@click.command()
@config_option
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C; with --json, one object a line.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: totals, and rates per second.")
@click.option(
    "--interval",
    type=click.FloatRange(0.05, 3600),
    default=1.0,
    show_default=True,
    help="Seconds over which rates are measured.",
)
def status(config: Path | None, watch: bool, as_json: bool, interval: float) -> None:
    """Show what this host's edge and transceivers do.

    The exit code is 0 when all is well, 1 when nothing runs, 3 when something is down, 2 for a wrong configuration.
    """
    try:
        host = Host(load(config))
    except ConfigError as e:
        click.echo(f"firsthop: {e}", err=True)
        sys.exit(2)
    if watch:
        # An exception out of nowhere, in the middle of a look, may hide behind one of a lock's.
        stop = threading.Event()
        signal.signal(signal.SIGINT, lambda number, frame: stop.set())
        _watch(host, interval, as_json, stop)
    else:
        with suppress(KeyboardInterrupt):
            sys.exit(_once(host, interval, as_json))


def _once(host: Host, interval_s: float, as_json: bool) -> int:
    now = next(host.watch(interval_s, threading.Event()))
    if now.nothing:
        click.echo(f"firsthop: {host.nothing()}", err=True)
    elif as_json:
        click.echo(json.dumps(now.as_json(), indent=2))
    else:
        Console(highlight=False).print(view(now))
    return now.exit_code


def _watch(host: Host, interval_s: float, as_json: bool, stop: threading.Event) -> None:
    if as_json:
        for now in host.watch(interval_s, stop):
            click.echo(json.dumps(now.as_json()))
        return
    console = Console(highlight=False)
    # The terminal's other screen: whatever the height, and what stood there before comes back.
    with Live(Text("measuring", style="dim"), console=console, auto_refresh=False, screen=True) as screen:
        for now in host.watch(interval_s, stop):
            screen.update(Text(host.nothing(), style="bold red") if now.nothing else view(now), refresh=True)


def scrape(places: list[Address]) -> Scrape | None:
    """The metrics of the first of ``places`` that is a process of firsthop; None where none is."""
    for place in places:
        with suppress(OSError, HTTPException, ValueError):
            with _opener.open(f"http://{place}/metrics", timeout=_PATIENCE_S) as response:
                text = response.read().decode()
            return Scrape(time.monotonic(), read(text))
    return None


def _is_here(host: str) -> bool:
    """Whether what listens on ``host`` is on this host, which is so where the address can be bound here."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
