"""The operator's side of hosts that boot: releases, an inventory, playbooks, calls, and what is left on a host."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_run import BIN, TREE, Ansible
from paths import ROOT

from lab.machines.hosts import Hosts
from lab.machines.wheels import build, copy_source, wheelhouse

NAMES = ("edge-1", "gpu-1", "gpu-2")
UNITS = {"edge-1": "firsthop-edge", "gpu-1": "firsthop-transceiver@1", "gpu-2": "firsthop-transceiver@257"}
TRANSCEIVERS = ("gpu-1", "gpu-2")


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a playbook: its exit code, all that it said, and the counts of its tasks by host."""

    code: int
    output: str

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        rows = re.findall(r"^(\S+) +: ((?:\w+=\d+ *)+)$", self.output, re.MULTILINE)
        return {host: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", row)} for host, row in rows}

    @property
    def changed(self) -> int:
        assert self.counts, self.output[-8000:]
        return sum(row["changed"] for row in self.counts.values())

    @property
    def words(self) -> str:
        """What it said, without line ends."""
        return " ".join(self.output.split())


class Rollout:
    """The operator's side: ``hosts``, an inventory of them, and wheels in ``folder``. ``settings`` are variables of
    every host, beside those that the tests need."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self.hosts, self.folder = hosts, folder
        (folder / "inventory/group_vars").mkdir(parents=True)
        self._tool = Ansible(folder / "inventory/hosts.yml", folder)
        self._to_operator = tuple(hosts.operator.command(()))
        self.settings: dict[str, Any] = {}
        self.wheel = self.build("0.1.0")

    @property
    def url(self) -> str:
        return f"http://{self.hosts['edge-1'].address}:8080"

    def build(self, version: str, broken: str = "") -> Path:
        """A release that is another one by its version alone; the module ``broken`` of it cannot be imported."""
        source = copy_source(self.folder / f"source-{version}")
        if broken:
            (source / broken).write_text("raise RuntimeError('broken')\n")
        project = source / "pyproject.toml"
        project.write_text(
            re.sub(r'^version = ".*"', f'version = "{version}"', project.read_text(), flags=re.MULTILINE)
        )
        return build(source, self.folder / "dist")

    def play(self, playbook: str, *argv: str, ok: bool = True) -> Played:
        """Runs a playbook, which is to end well or not."""
        self._write_inventory()
        done = self._tool.play(playbook, *argv, prefix=self._to_operator)
        assert (done.returncode == 0) == ok, done.stdout[-8000:]
        return Played(done.returncode, done.stdout)

    def play_until(self, playbook: str, task: str, then: Callable[[], object] | None = None) -> Played:
        """Runs a playbook. When it begins that ``task`` for the first time, ``then`` is called, and it goes on to its
        end; without that it is killed."""
        self._write_inventory()
        argv = [*self._to_operator, str(BIN / "ansible-playbook"), str(TREE / playbook)]
        output = ""
        with subprocess.Popen(
            argv,
            cwd=TREE,
            env=self._tool.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                output += line
                if line.startswith("TASK [") and task in line:
                    break
            else:
                raise AssertionError(output[-8000:])
            if then is None:
                process.send_signal(signal.SIGKILL)
            else:
                then()
                output += process.stdout.read()
        return Played(process.returncode, output)

    def _write_inventory(self) -> None:
        addresses = {name: {"ansible_host": self.hosts[name].address} for name in NAMES}
        edge = {
            "edge_http": f"{self.hosts['edge-1'].address}:8080",
            "edge_interface": "eth0",
            "edge_backbone_port": 7460,
        }
        groups = {
            "edge": {"hosts": {"edge-1": addresses["edge-1"] | edge}},
            "transceiver": {
                "hosts": {
                    name: addresses[name] | {"transceiver_id": first} for name, first in (("gpu-1", 1), ("gpu-2", 257))
                }
            },
            "redis": {"hosts": {"gpu-1": None}},
            "monitoring": {"hosts": {"edge-1": None}},
            "turn": {"hosts": {"gpu-2": None}},
        }
        options = self.hosts.ssh.split()
        everywhere = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.hosts.key),
            "ansible_ssh_common_args": " ".join(options[2:]),
            "firsthop_wheel": str(self.wheel),
            "firsthop_wheelhouse": str(wheelhouse()),
            **self.settings,
        }
        inventory = self._tool.inventory
        (inventory.parent / "group_vars/firsthop.yml").write_text(json.dumps(everywhere))
        inventory.write_text(json.dumps({"firsthop": {"children": groups}}))

    def call(self, *argv: str) -> subprocess.Popen[str]:
        """Calls from the operator's place."""
        token = self.folder / "api-keys"
        token.write_text(self.hosts["edge-1"].run("cat", "/etc/firsthop/api-keys"))
        token.chmod(0o600)
        command = [sys.executable, "-m", "firsthop", "call", self.url, "--token-file", str(token), "--json", "--quiet"]
        return self.hosts.operator.popen([*command, *argv], cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def call_relayed(self) -> dict[str, Any]:
        """Calls with aiortc from the operator's place, over the TURN server's TLS alone."""
        token = self.hosts["edge-1"].run("cat", "/etc/firsthop/api-keys").split()[-1]
        argv = [sys.executable, str(ROOT / "tests/appliance/turn/call_relayed.py"), self.url, token, "turns:"]
        trusting = os.environ | {"SSL_CERT_FILE": self.settings["turn_tls_certificate"]}
        command = self.hosts.operator.command(argv)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=trusting)
        assert done.returncode == 0, done.stderr[-4000:]
        return dict(json.loads(done.stdout))

    def ready(self) -> bool:
        """Whether a call placed now would find a transceiver."""
        try:
            self.ask("edge-1", f"{self.url}/readyz")
        except OSError:  # a refusal is one
            return False
        return True

    def live(self) -> int:
        """The calls that the transceivers hold."""
        return sum(self._live(name) for name in TRANSCEIVERS)

    def _live(self, name: str) -> int:
        found, port = 0, 9501
        while True:
            try:
                text = self.ask(name, f"http://{self.hosts[name].address}:{port}/metrics")
            except OSError:
                return found
            values = re.findall(r"^firsthop_transceiver_sessions(?:{.*})? (\S+)$", text, re.MULTILINE)
            found, port = found + sum(int(float(value)) for value in values), port + 1

    def ask(self, name: str, url: str) -> str:
        """What is at ``url`` for that host. Raises OSError."""

        def there() -> str:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())

        return self.hosts[name].inside(there)

    def main(self, name: str) -> str:
        """The pid there of the main process of a host's unit; 0 where it does not run."""
        return self.hosts[name].run("systemctl", "show", "--property=MainPID", "--value", UNITS[name]).strip()

    def releases(self) -> list[str]:
        """The releases of the main processes of the units, in the order of ``NAMES``; empty where one does not run."""
        commands = [
            self.hosts[name].run("cat", f"/proc/{pid}/cmdline") if (pid := self.main(name)) != "0" else ""
            for name in NAMES
        ]
        return [command.partition("/releases/")[2].partition("-")[0] for command in commands]

    def left(self) -> dict[str, str]:
        """What there is of firsthop on each host, and the names of all files where anything could be left."""
        looks = (
            "find / -xdev ( -path /proc -o -path /sys -o -path /tmp ) -prune -o -iname *firsthop* -print",
            "find /sys/fs/bpf /run -iname *firsthop*",
            # But for what Ansible keeps, and shadow's copies of the files of users.
            "find /etc /usr/local /opt /srv /home /root /usr/lib/modules /usr/lib/systemd"
            " ( -name .ansible* -o -name *- ) -prune -o -print",
            "getent passwd firsthop",
            "nft list tables",
            "ip link show eth0",
            "sysctl net.core.rmem_max net.core.wmem_max net.core.netdev_max_backlog",
            "systemctl list-units --all --plain --no-legend *firsthop*",
            "pgrep --list-full --full firsthop",
        )
        return {
            name: "\n".join(_sorted(self.hosts[name].run(*look.split(), check=False)) for look in looks)
            for name in NAMES
        }


def _sorted(lines: str) -> str:
    return "\n".join(sorted(lines.splitlines()))


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Prints how long it took."""
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s", flush=True)


def said(process: subprocess.Popen[str]) -> Any:
    """The report of calls that have ended well."""
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output[-4000:]
    return json.loads(output)
