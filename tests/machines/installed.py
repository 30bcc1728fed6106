"""A booted host with firsthop installed and started by the documents' own steps, and what its systemd says of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paths import OPERATIONS, ROOT, steps
from prometheus_client.parser import text_string_to_metric_families
from waiting import until

from lab.machines.hosts import Hosts
from lab.machines.image import image
from lab.machines.machine import Machine
from lab.machines.wheels import build, copy_source, wheelhouse

EDGE, TRANSCEIVERS = "firsthop-edge.service", "firsthop-transceiver@1.service"
_HERE = "/srv/firsthop"
_ETC = "/etc/firsthop"
_IN_WHEELHOUSE = ("env", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/srv/wheels", "PIP_ROOT_USER_ACTION=ignore")


class Installed:
    """The services of ``machine``; calls come from the operator's place."""

    def __init__(self, hosts: Hosts, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self._operator = hosts.operator
        self._token = folder / "token"
        shutil.copy(machine.path(f"{_ETC}/api-keys"), self._token)
        self._token.chmod(0o600)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit (systemctl show)."""
        return self.machine.run("systemctl", "show", unit, f"--property={name}", "--value").strip()

    def main(self, unit: str) -> int:
        """The pid there of a unit's main process."""
        return int(self.show(unit, "MainPID"))

    def processes(self) -> dict[str, int]:
        """The pid there of each process of firsthop's user that has a name of its own, such as ``worker-0``."""
        said = self.machine.run("ps", "-u", "firsthop", "-o", "pid=,comm=", check=False)
        found = [line.split() for line in said.splitlines()]
        return {name: int(pid) for pid, name in found if not name.startswith("firsthop")}

    def log(self, unit: str) -> str:
        """A unit's log since the boot."""
        return self.machine.run("journalctl", "--unit", unit, "--output=cat", "--no-pager")

    def metrics(self, port: int) -> dict[tuple[str, ...], float]:
        """What the process says that serves its metrics at this port: (name, label, ...) to value."""

        def fetch() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
                return str(response.read().decode())

        families = text_string_to_metric_families(self.machine.inside(fetch))
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}

    def ready(self) -> bool:
        """Whether a call would be answered."""

        def asked() -> bool:
            try:
                with urllib.request.urlopen(f"http://{self.machine.address}:8080/readyz", timeout=10):
                    return True
            except OSError:
                return False

        return self.machine.inside(asked)

    def start_calls(self, n: int) -> subprocess.Popen[bytes]:
        """Calls that go on until ``hang_up``; all of them are up."""
        argv = [sys.executable, "-m", "firsthop", "call", f"http://{self.machine.address}:8080", "--json", "--quiet"]
        argv += ["--token-file", str(self._token), "-n", str(n), "--model", "echo", "--duration", "600"]
        calls = self._operator.popen(argv, stdout=subprocess.PIPE, cwd=ROOT)
        until(lambda: self.flows() == n)
        self.goes_on()
        return calls

    def hang_up(self, calls: subprocess.Popen[bytes]) -> tuple[int, int]:
        """Ends them. Returns how many were well to the end, and how many frames they have lost."""
        calls.terminate()
        output, _ = calls.communicate(timeout=120)
        assert calls.returncode == 0, output.decode()
        said = json.loads(output)
        until(lambda: self.flows() == 0)
        return said["calls"]["ok"], said["audio"]["frames"]["lost"]

    def flows(self) -> int:
        return int(self.metrics(9400)[("firsthop_xdp_flows",)])

    def goes_on(self, frames: int = 50) -> None:
        """Returns when the transceivers have heard that many more frames."""

        def heard() -> float:
            name = ("firsthop_rx_transceiver_datagrams_total", "audio")
            return sum(self.metrics(port)[name] for port in (9502, 9503))

        before = heard()
        until(lambda: heard() - before >= frames)

    def whole(self) -> bool:
        """Whether every process is in its place, the spares too."""
        expected = {"signaling", "worker-0", "worker-1", "worker-spare", "media-1", "media-2", "media-spare"}
        return expected <= self.processes().keys() and self.ready()


@contextmanager
def installed(folder: Path) -> Iterator[Installed]:
    """A fresh host, where the chapter on services was followed; with two transceivers, and the wheel of this source."""
    here = folder / "files"
    wheel = build(copy_source(folder / "source"), here)
    shutil.copy(ROOT / "requirements/base.txt", here)
    with Hosts("edge", image=image(), binds={"/srv/wheels": wheelhouse(), _HERE: here}) as hosts:
        machine = hosts["edge"]
        for argv in steps(OPERATIONS, "Services"):
            if argv[0] == "apt-get":
                packages = [word for word in argv[2:] if not word.startswith("-")]
                machine.run("dpkg-query", "-W", *packages)  # the image has them
            elif argv[0].endswith("pip"):
                assert argv[-1] in ("base.txt", wheel.name)
                machine.run(*_IN_WHEELHOUSE, *argv[:-1], f"{_HERE}/{argv[-1]}", timeout=600)
            elif argv[1] == "init":
                machine.run(*argv, "--interface", "eth0", "--http", f"{machine.address}:8080")
                _with_two_transceivers(machine)
            elif argv[0] == "cp":
                machine.run("sh", "-c", " ".join(argv))
            else:
                machine.run(*argv)
        installed = Installed(hosts, machine, folder)
        until(installed.whole)
        yield installed


def _with_two_transceivers(machine: Machine) -> None:
    config = machine.path(f"{_ETC}/firsthop.toml")
    text = config.read_text()
    row = "[[edge.transceivers]]\nid = 1\n"
    assert row in text
    config.write_text(text.replace(row, f"{row}processes = 2\n"))
    machine.path(f"{_ETC}/transceiver-1.env").write_text("FIRSTHOP_TRANSCEIVER__CORES=[0,1]\n")
