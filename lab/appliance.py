"""The whole appliance, started as an operator would: a key file, a token, a TOML file, two commands.

For the demo, tests and benchmarks. It runs on the hosts of a lab, or, without root, on ``Loopback``.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

import psutil
from prometheus_client.parser import text_string_to_metric_families

from lab.network import Lab
from wire.keys import new_file_text

__all__ = ["Appliance", "ApplianceError", "Loopback", "Place", "end"]

T = TypeVar("T")
READY_S = 60.0
GOODBYE_S = 10.0
# The last word of a child's command line.
_CHILDREN = (["edge.relay.worker"], ["edge.signaling"], ["transceiver.child"])


class ApplianceError(RuntimeError):
    """The error that the appliance did not come up; the text ends with what the processes logged."""


class Place(Protocol):
    """A place where processes run: a host of the lab, or this machine."""

    @property
    def address(self) -> str:
        """The place's IPv4 address."""

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a program there."""

    def inside(self, work: Callable[[], T]) -> T:
        """Calls ``work`` there."""


class Loopback:
    """This machine, as it is."""

    address = "127.0.0.1"

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a program."""
        return subprocess.Popen(argv, **options)  # noqa: S603

    def inside(self, work: Callable[[], T]) -> T:
        """Calls ``work``."""
        return work()


class Appliance:
    """One edge and one transceiver host, or two of them in a lab that has two; files and logs go to ``directory``. A
    context manager."""

    one_host = False
    """Whether transceivers of a lab are on the edge's host, so that media goes past the workers, where nobody says."""

    def __init__(
        self,
        directory: Path,
        *,
        lab: Lab | None = None,
        agent: str = "parrot",
        http_port: int = 8080,
        media_port: int = 3478,
        transceiver_cores: Sequence[int] = (),
        capacity: Literal["measured", "fixed"] = "fixed",
        drain_s: float = 0,
        one_host: bool | None = None,
        **edge: Any,
    ) -> None:
        """``edge`` are more keys of section [edge], such as ``cores`` or ``interface``; both edges have them, as
        both transceiver hosts have the others. Its capacity is fixed: what a test's machine can do is not what the test
        is about. Transceivers end at once, unless they have ``drain_s``. With ``one_host`` those of a lab that has one
        host for them are on the edge's host."""
        if one_host is None:
            one_host = self.one_host and lab is not None and not lab.edge_2 and not lab.transceiver_2
        self._cores = tuple(transceiver_cores)
        self._directory = directory
        self.edge: Place = lab.edge if lab else Loopback()
        self.edge_2: Place | None = lab.edge_2 if lab else None
        self.transceiver: Place = (lab.edge if one_host else lab.transceiver) if lab else Loopback()
        self.transceiver_2: Place | None = lab.transceiver_2 if lab else None
        self.token = secrets.token_urlsafe(24)
        self.token_file = directory / "token"
        self._certificate: str | None = edge.get("tls_certificate")  # which vouches for itself
        self.url = f"{'https' if self._certificate else 'http'}://{self.edge.address}:{http_port}"
        self.processes: dict[str, subprocess.Popen[Any]] = {}
        self.environment: dict[str, dict[str, str]] = {}  # variables for a process, by its name, set before it starts
        count = max(1, len(self._cores))
        endpoints = [f"tcp://{place.address}:7400" for place in self._transceivers.values()]
        if not lab or one_host:
            endpoints = [f"ipc://{directory}/transceiver-1.sock"]
        self.config_file = directory / "firsthop.toml"
        (directory / "cluster.toml").write_text(new_file_text())
        self.token_file.write_text(self.token + "\n")
        shared = {"cluster": {"keys": str(directory / "cluster.toml")}}
        transceivers = [{"id": 1 + n * count, "endpoint": endpoint} for n, endpoint in enumerate(endpoints)]
        transceiver = {
            "agent": agent,
            "cores": list(self._cores),
            "run": str(directory),
            "capacity": capacity,
            "drain_s": drain_s,
            "express": "between" if edge.get("inner_interface") else "auto",
        }
        self._pins = {name: Path("/sys/fs/bpf", f"firsthop-{secrets.token_hex(4)}") for name in self._edges}
        if lab:
            edge = {"interface": lab.edge_interface, **edge}
        if lab and lab.edge_2:
            inner = {"edge": lab.edge_inner_address, "edge-2": lab.edge_2_inner_address}
            edge["edges"] = [
                {
                    "name": name,
                    "media": edge.get("media", f"{place.address}:{media_port}"),
                    "endpoint": f"tcp://{inner[name]}:7450",
                }
                for name, place in self._edges.items()
            ]
        for name, place in self._edges.items():
            section = {
                "name": name,
                "media": f"{place.address}:{media_port}",
                "http": f"{place.address}:{http_port}",
                "api_keys": str(self.token_file),
                "run": str(directory),
                "pins": str(self._pins[name]),
                **edge,
                "transceivers": [{**each, "processes": count} for each in transceivers],
            }
            first = {**transceivers[0], **transceiver}
            self.config_of(name).write_text(_toml({**shared, "edge": section, "transceiver": first}))
        for name, each in list(zip(self._transceivers, transceivers, strict=True))[1:]:
            self.config_of(name).write_text(_toml({**shared, "transceiver": {**each, **transceiver}}))
        for path in (directory / "cluster.toml", self.token_file):
            path.chmod(0o600)

    @property
    def _edges(self) -> dict[str, Place]:
        """The edges by their names, which are those of their processes too."""
        return {"edge": self.edge} if self.edge_2 is None else {"edge": self.edge, "edge-2": self.edge_2}

    @property
    def _transceivers(self) -> dict[str, Place]:
        """The transceiver hosts, in the same way."""
        second = {} if self.transceiver_2 is None else {"transceiver-2": self.transceiver_2}
        return {"transceiver": self.transceiver, **second}

    def place_of(self, process: str) -> Place:
        """Where "edge", "edge-2", "transceiver" or "transceiver-2" runs."""
        return {**self._edges, **self._transceivers}[process]

    def config_of(self, process: str) -> Path:
        """Its configuration. The first edge and the first transceiver host share one file."""
        second = {"edge-2": "firsthop-2.toml", "transceiver-2": "transceiver-2.toml"}
        return self._directory / second.get(process, self.config_file.name)

    def __enter__(self) -> Self:
        try:
            for process in (*self._transceivers, *self._edges):
                self.start(process)
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, process: str) -> None:
        """Starts "edge", "edge-2", "transceiver" or "transceiver-2"."""
        place, config = self.place_of(process), self.config_of(process)
        argv = [sys.executable, "-m", "firsthop", process.removesuffix("-2"), "--config", str(config)]
        with self.log_file(process).open("ab") as log:
            # A group of its own: Ctrl-C at a terminal is for whoever runs the demo, who then ends these in order.
            self.processes[process] = place.popen(
                argv,
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
                start_new_session=True,
                # As good as --config, and it marks what the edge leaves when it is killed.
                env={
                    **os.environ,
                    **self.environment.get(process, {}),
                    "FIRSTHOP_CONFIG_FILE": str(config),
                },
            )

    def log_file(self, process: str) -> Path:
        """The file of what a process logged, as JSON lines."""
        return self._directory / f"{process}.log"

    def wait_ready(self) -> None:
        """Waits until supervisor and workers run and a call would be answered. Raises ApplianceError."""
        deadline = time.monotonic() + READY_S
        while not self._ready():
            dead = [name for name, p in self.processes.items() if p.poll() is not None]
            if dead or time.monotonic() > deadline:
                logs = "".join(self.log_file(name).read_text() for name in self.processes)
                raise ApplianceError(f"{' and '.join(dead) or 'the appliance'} did not come up:\n{logs}")
            time.sleep(0.05)

    def close(self) -> None:
        """Ends the edge, then the transceiver, and waits for them. Processes that a killed supervisor left are ended by
        its successor."""
        killed = [name for name, process in self.processes.items() if process.poll() not in (None, 0)]
        if killed and any(self.children(edge) for edge in self._edges):
            for name in killed:
                self.start(name)
            with suppress(ApplianceError):
                self.wait_ready()
        for name in (*self._edges, *self._transceivers):
            process = self.processes.pop(name, None)
            if process is None:
                continue
            if name in self._edges:
                process.send_signal(signal.SIGINT)  # with SIGTERM alone it would wait for its calls
            end(process, GOODBYE_S)
        for pins in self._pins.values():
            shutil.rmtree(pins, ignore_errors=True)  # of an edge whose host was killed

    def children(self, host: str = "edge") -> dict[str, psutil.Process]:
        """The supervisors' children, whoever started them, as they call themselves: ``worker-0``, ``worker-1``,
        ``worker-spare``, ``signaling``; ``media-1``, ``media-spare``. Those of the hosts ``edge-2`` and
        ``transceiver-2`` are asked for by these names."""
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # died just now, or not ours to look at
                mine = process.environ().get("FIRSTHOP_CONFIG_FILE") == str(self.config_of(host))
                # A process that dies between the two looks has no command line any more.
                if mine and process.cmdline()[-1:] in _CHILDREN:
                    found[process.name()] = process
        return found

    def metrics(self, process: str, host: str = "") -> dict[tuple[str, ...], float]:
        """The counters of ``edge``, ``signaling``, ``worker-<n>``, ``transceiver`` or ``media-<id>``, on the first such
        host or on ``host``: (name, label, ...) to value."""
        of_edge = process in ("edge", "signaling") or process.startswith("worker-")
        place = self.place_of(host or ("edge" if of_edge else "transceiver"))
        port = (9400 if of_edge else 9500) + _offset(process)
        if host == "transceiver-2" and process != "transceiver":
            port -= len(self._cores)  # its first process has the id behind those of the first host

        def fetch(tries: int = 3) -> str:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
                    return str(response.read().decode())
            except ConnectionResetError:  # by a process that leaves; its successor answers
                if tries == 1:
                    raise
                return fetch(tries - 1)

        families = text_string_to_metric_families(place.inside(fetch))
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}

    def _ready(self) -> bool:
        for host in self._transceivers:
            medias = [name for name in self.children(host) if re.fullmatch(r"media-\d+", name)]
            if len(medias) < len(self._cores):
                return False
        return all(self._is_up(edge) for edge in self._edges)

    def _is_up(self, edge: str) -> bool:
        url, place = self.url.replace(self.edge.address, self._edges[edge].address), self._edges[edge]
        tls = ssl.create_default_context(cafile=self._certificate) if self._certificate else None

        def asked() -> bool:
            try:
                with urllib.request.urlopen(f"{url}/readyz", timeout=10, context=tls):  # noqa: S310
                    pass
                workers = [name for name in self.children(edge) if re.fullmatch(r"worker-\d+", name)]
                for process in ("edge", *workers):
                    with urllib.request.urlopen(f"http://127.0.0.1:{9400 + _offset(process)}/metrics", timeout=10):
                        pass
            except (OSError, urllib.error.URLError, psutil.NoSuchProcess):
                return False
            return bool(workers)

        return place.inside(asked)


def end(process: subprocess.Popen[Any], within_s: float) -> None:
    """Ends a process, by force where it does not do so within that time, and waits for it."""
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _offset(process: str) -> int:
    if process.startswith("worker-"):
        return 2 + int(process.removeprefix("worker-"))
    if process.startswith("media-"):
        return int(process.removeprefix("media-"))
    return {"edge": 0, "signaling": 1, "transceiver": 0}[process]


def _toml(sections: dict[str, dict[str, Any]]) -> str:
    """Just enough TOML: tables of scalars and lists, which JSON writes alike, and lists of tables."""
    lines = []
    for section, keys in sections.items():
        lines.append(f"[{section}]")
        tables = {
            key: value
            for key, value in keys.items()
            if isinstance(value, list) and value and isinstance(value[0], dict)
        }
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items() if key not in tables]
        for key, rows in tables.items():
            for row in rows:
                lines += [f"[[{section}.{key}]]", *(f"{k} = {json.dumps(v)}" for k, v in row.items())]
    return "\n".join(lines) + "\n"
