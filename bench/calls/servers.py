"""The servers that are compared, each as its user would start it, all on one core of the edge host."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bench.calls.usage import processes
from bench.harness.conditions import SERVER_CPU, pin
from bench.harness.document import ROOT
from bench.harness.processes import await_quiet, started_processes, write_secrets
from lab.network import Lab

__all__ = ["PASSING", "SERVERS", "Running", "ServerError", "Site", "firsthop"]

FASTRTC = ROOT / ".venv-fastrtc" / "bin" / "python"
HTTP_PORT, MEDIA_PORT = 8080, 3478
READY_S = 90.0
QUIET_S = 0.3
MOST_CALLS = 2000


class ServerError(RuntimeError):
    """The error that a server is not there, did not come up or took no calls; the text says why."""


@dataclass
class Site:
    """The hosts and a directory for files and logs."""

    lab: Lab
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, name: str, *argv: str | Path) -> subprocess.Popen[Any]:
        """Starts a program on the edge host, on the servers' core; its output goes to a log of that name."""
        if shutil.which(argv[0]) is None:
            raise ServerError(f"{argv[0]} is missing: run scripts/setup bench as root")
        with self.log_file(name).open("w") as log:
            return self.lab.edge.popen(
                pin([str(part) for part in argv], SERVER_CPU),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **self.environment},
            )

    def log_file(self, name: str) -> Path:
        return self.directory / f"{name}.log"


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs: the ``protocol`` of its offers and what they need, and its processes by id and name."""

    protocol: str
    where: dict[str, str]
    processes: Callable[[], dict[int, str]]
    channel: bool = False


Start = Callable[[Site], AbstractContextManager[Running]]


@contextmanager
def firsthop(
    site: Site, agent: str, *, max_sessions: int = MOST_CALLS, capacity: Literal["measured", "fixed"] = "fixed"
) -> Iterator[Running]:
    """Edge with XDP, one worker, signaling; one transceiver on the same host, over ipc."""
    lab, here = site.lab, site.directory
    config, endpoint = here / "firsthop.toml", f"ipc://{here}/transceiver.sock"
    token = secrets.token_urlsafe(24)
    secret = write_secrets(here, token)
    config.write_text(
        f"""
        cluster.keys = "{secret["keys"]}"
        [edge]
        media = "{lab.edge.address}:{MEDIA_PORT}"
        interface = "{lab.edge_interface}"
        run = "{here}"
        pins = "/sys/fs/bpf/firsthop-bench-{os.getpid()}"
        http = "{lab.edge.address}:{HTTP_PORT}"
        api_keys = "{here}/token"
        connections_per_address = 0  # all callers have one
        calls_per_minute = 0  # and one key
        [[edge.transceivers]]
        id = 1
        endpoint = "{endpoint}"
        [transceiver]
        run = "{here}"
        id = 1
        endpoint = "{endpoint}"
        agent = "{agent}"
        max_sessions = {max_sessions}
        capacity = "{capacity}"
        """
    )
    command = (sys.executable, "-m", "firsthop")
    mark = ("FIRSTHOP_CONFIG_FILE", str(config))
    site = Site(lab, here, dict([mark]))
    with started_processes() as started:
        transceiver = started(site.start("transceiver", *command, "transceiver"))
        edge = started(site.start("edge", *command, "edge"))
        where = _where(site, token=token, agent=agent)
        _await_answer(site, f"{where['url']}/readyz", edge, transceiver)
        await_quiet(edge, quiet_s=QUIET_S, within_s=READY_S, idle_s=0.02)
        yield Running(
            "firsthop",
            where,
            partial(processes, {transceiver.pid: "transceiver", edge.pid: "supervisor"}, mark),
        )


@contextmanager
def aiortc(site: Site) -> Iterator[Running]:
    """``aiortc_server.py``."""
    with started_processes() as started:
        where = _where(site)
        server = started(
            site.start(
                "aiortc", sys.executable, "-m", "bench.calls.aiortc_server", site.lab.edge.address, str(HTTP_PORT)
            )
        )
        _await_answer(site, where["url"], server)
        yield Running("aiortc", where, partial(processes, {server.pid: "aiortc"}))


@contextmanager
def fastrtc(site: Site) -> Iterator[Running]:
    """``fastrtc_server.py``, which wants a data channel before it sends."""
    script = Path(__file__).with_name("fastrtc_server.py")
    with started_processes() as started:
        where = _where(site)
        server = started(site.start("fastrtc", FASTRTC, script, site.lab.edge.address, str(HTTP_PORT)))
        _await_answer(site, f"{where['url']}/openapi.json", server)
        await_quiet(server, quiet_s=QUIET_S, within_s=READY_S, idle_s=0.02)
        yield Running("fastrtc", where, partial(processes, {server.pid: "fastrtc"}), channel=True)


@contextmanager
def janus(site: Site) -> Iterator[Running]:
    """The EchoTest plugin over HTTP, with Debian's build and Janus's defaults."""
    host, here = site.lab.edge.address, site.directory / "janus"
    here.mkdir(exist_ok=True)
    library = "/usr/lib/x86_64-linux-gnu/janus"
    (here / "plugins").mkdir(exist_ok=True)
    (here / "transports").mkdir(exist_ok=True)
    for part in ("plugins/libjanus_echotest.so", "transports/libjanus_http.so"):
        link = here / part
        link.unlink(missing_ok=True)
        found = next(Path(library, part).parent.glob(f"{link.name}*"), None)
        if found is None:
            raise ServerError(f"Janus has no {link.name}: run scripts/setup bench as root")
        link.symlink_to(found)
    (here / "janus.jcfg").write_text(
        f"""
        general: {{
            configs_folder = "{here}"
            plugins_folder = "{here}/plugins"
            transports_folder = "{here}/transports"
            debug_level = 2
            session_timeout = 0  # the load does not poll while it talks
        }}
        nat: {{ ice_enforce_list = "{host}" }}
        """
    )
    (here / "janus.transport.http.jcfg").write_text(
        f"""
        general: {{ base_path = "/janus" http = true port = {HTTP_PORT} ip = "{host}" https = false }}
        """
    )
    with started_processes() as started:
        where = _where(site)
        server = started(site.start("janus", "janus", "--config", here / "janus.jcfg", "--configs-folder", here))
        _await_answer(site, f"{where['url']}/janus/info", server)
        await_quiet(server, quiet_s=QUIET_S, within_s=READY_S, idle_s=0.02)
        yield Running("janus", where, partial(processes, {server.pid: "janus"}))


SERVERS: dict[str, Start] = {
    "firsthop": partial(firsthop, agent="loopback"),
    "aiortc": aiortc,
    "fastrtc": fastrtc,
    "firsthop-echo": partial(firsthop, agent="echo"),
    "janus": janus,
}
# These pass Opus on, the others decode and encode it.
PASSING = ("firsthop-echo", "janus")


def _where(site: Site, **more: str) -> dict[str, str]:
    host = site.lab.edge.address
    return {"host": host, "url": f"http://{host}:{HTTP_PORT}", **more}


def _await_answer(site: Site, url: str, *servers: subprocess.Popen[Any]) -> None:
    """Waits until ``url`` is served."""

    def answered() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=10):  # noqa: S310
                return True
        except (OSError, urllib.error.URLError):
            return False

    deadline = time.monotonic() + READY_S
    while not site.lab.edge.inside(answered):
        if any(server.poll() is not None for server in servers) or time.monotonic() > deadline:
            logs = "".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in site.directory.glob("*.log"))
            raise ServerError(f"{servers[0].args!r} did not come up:\n{logs}")
        time.sleep(0.05)
