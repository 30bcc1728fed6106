"""The playbooks on hosts that boot: three of Debian's, from nothing to calls and back to nothing."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_run import BIN, TREE, Ansible
from paths import ROOT
from waiting import until

from lab.machines.hosts import Hosts
from lab.machines.image import image
from lab.machines.wheels import build, copy_source, wheelhouse

pytestmark = [pytest.mark.trials, pytest.mark.needs_root]

# What roles ask Debian for: these hosts reach no mirror.
MORE = ("espeak-ng", "ethtool", "nftables", "openssl", "prometheus", "python3-apt", "redis-server", "util-linux")
NAMES = ("edge-1", "gpu-1", "gpu-2")


class Rollout:
    """The operator's side: ``hosts``, an inventory of them, and wheels in ``folder``."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self.hosts, self._folder = hosts, folder
        (folder / "inventory").mkdir()
        self._tool = Ansible(folder / "inventory/hosts.yml", folder)
        self._to_operator = tuple(hosts.operator.command(()))
        self.wheel = self._build("0.1.0")

    @property
    def url(self) -> str:
        return f"http://{self.hosts['edge-1'].address}:8080"

    def _build(self, version: str) -> Path:
        source = copy_source(self._folder / f"source-{version}")
        project = source / "pyproject.toml"
        project.write_text(
            re.sub(r'^version = ".*"', f'version = "{version}"', project.read_text(), flags=re.MULTILINE)
        )
        return build(source, self._folder / "dist")

    def next_release(self) -> None:
        """Builds a release that is another one by its version alone."""
        self.wheel = self._build("0.1.1")

    def play(self, playbook: str, *argv: str, ok: bool = True) -> dict[str, dict[str, int]]:
        """Runs a playbook; what became of its tasks, by host."""
        self._write_inventory()
        done = self._tool.play(playbook, *argv, prefix=self._to_operator)
        assert (done.returncode == 0) == ok, done.stdout[-8000:]
        rows = re.findall(r"^(\S+) +: ((?:\w+=\d+ *)+)$", done.stdout, re.MULTILINE)
        return {host: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", row)} for host, row in rows}

    def cut_short(self, playbook: str, at: str) -> None:
        """Runs a playbook, and kills it when it has come to the task ``at``."""
        self._write_inventory()
        argv = [*self._to_operator, str(BIN / "ansible-playbook"), str(TREE / playbook)]
        process = subprocess.Popen(
            argv, cwd=TREE, env=self._tool.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        assert any(at in line for line in process.stdout), at
        process.send_signal(signal.SIGKILL)
        process.wait()

    def _write_inventory(self) -> None:
        addresses = {name: {"ansible_host": self.hosts[name].address} for name in NAMES}
        groups = {
            "edge": {"hosts": {"edge-1": addresses["edge-1"] | {"edge_http": f"{self.hosts['edge-1'].address}:8080"}}},
            "transceiver": {
                "hosts": {
                    name: addresses[name] | {"transceiver_id": first} for name, first in (("gpu-1", 1), ("gpu-2", 257))
                }
            },
            "redis": {"hosts": {"gpu-1": None}},
            "monitoring": {"hosts": {"edge-1": None}},
        }
        options = self.hosts.ssh.split()
        everywhere = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.hosts.key),
            "ansible_ssh_common_args": " ".join(options[2:]),
            "firsthop_wheel": str(self.wheel),
            "firsthop_wheelhouse": str(wheelhouse()),
        }
        settings = self._tool.inventory.parent / "group_vars/firsthop.yml"
        settings.parent.mkdir(exist_ok=True)
        settings.write_text(json.dumps(everywhere))
        self._tool.inventory.write_text(json.dumps({"firsthop": {"children": groups}}))

    def call(self, *argv: str) -> subprocess.Popen[str]:
        """Calls from the operator's place."""
        token = self._folder / "api-keys"
        token.write_text(self.hosts["edge-1"].run("cat", "/etc/firsthop/api-keys"))
        command = [sys.executable, "-m", "firsthop", "call", self.url, "--token-file", str(token), "--json", "--quiet"]
        return self.hosts.operator.popen([*command, *argv], cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def ready(self) -> bool:
        """Whether a call placed now would find a transceiver."""

        def ask() -> bool:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        return self.hosts["edge-1"].inside(ask)

    def releases(self) -> set[str]:
        """The releases of the main processes of the units."""
        found = set()
        for name, unit in (
            ("edge-1", "firsthop-edge"),
            ("gpu-1", "firsthop-transceiver@1"),
            ("gpu-2", "firsthop-transceiver@257"),
        ):
            pid = self.hosts[name].run("systemctl", "show", "--property=MainPID", "--value", unit).strip()
            command = self.hosts[name].run("cat", f"/proc/{pid}/cmdline")
            found.add(command.split("/releases/")[1].partition("-")[0])
        return found


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s")


def said(process: subprocess.Popen[str]) -> Any:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output[-4000:]
    return json.loads(output)


@pytest.mark.timeout(3000)
def test_three_hosts_from_nothing_to_calls_and_back_to_nothing(tmp_path: Path) -> None:
    with Hosts(*NAMES, image=image(MORE, "rollout")) as hosts:
        before = {name: left(hosts, name) for name in NAMES}
        rollout = Rollout(hosts, tmp_path)
        rollout.play("secrets.yml")
        rollout.play("site.yml", "--check")  # of fresh hosts

        rollout.cut_short("site.yml", "Install its packages")
        with timed("site.yml, to the first call"):
            rollout.play("site.yml")
        with timed("site.yml again"):
            again = rollout.play("site.yml")
        assert {name: row["changed"] for name, row in again.items()} == dict.fromkeys((*NAMES, "localhost"), 0)
        assert rollout.releases() == {"0.1.0"}

        # A new release under calls: every one of them is heard to its end.
        rollout.next_release()
        rollout.play("site.yml")  # which leaves the release alone
        assert rollout.releases() == {"0.1.0"}
        calls = rollout.call("-n", "20", "--rate", "10", "--duration", "150")
        until(lambda: live(hosts) == 20)
        with timed("upgrade.yml under 20 calls"):
            rollout.play("upgrade.yml")
        assert live(hosts) == 20
        assert calls.poll() is None
        assert rollout.releases() == {"0.1.1"}
        said(calls)
        again = rollout.play("upgrade.yml")
        assert not sum(row["changed"] for row in again.values())

        rollout.play("rotate-keys.yml")
        keys = {hosts[name].run("grep", "-c", "ufrag", "/etc/firsthop/cluster.toml").strip() for name in NAMES}
        assert keys == {"2"}
        assert len({hosts[name].run("sha256sum", "/etc/firsthop/cluster.toml") for name in NAMES}) == 1
        said(rollout.call("--duration", "1"))

        # Prometheus hears of every process.
        def health() -> list[str]:
            with urllib.request.urlopen("http://127.0.0.1:9090/api/v1/targets", timeout=5) as answer:
                return [target["health"] for target in json.load(answer)["data"]["activeTargets"]]

        until(lambda: set(hosts["edge-1"].inside(health)) == {"up"})

        hosts["edge-1"].shut_down()
        with timed("an edge boots, until a call would be answered"):
            hosts["edge-1"].boot()
            until(rollout.ready)
        said(rollout.call("--duration", "1"))

        rollout.play("remove.yml")
        assert {name: left(hosts, name) for name in NAMES} == before


def live(hosts: Hosts) -> int:
    """The calls that the transceivers hold."""
    total = 0
    for name in ("gpu-1", "gpu-2"):
        address = hosts[name].address

        def ask(address: str = address) -> int:
            found = 0
            for port in range(9500, 9500 + 1 + 64):
                try:
                    with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=2) as answer:
                        text = answer.read().decode()
                except (urllib.error.URLError, OSError):
                    if port > 9500:
                        break
                    continue
                found += sum(
                    int(float(n))
                    for n in re.findall(r"^firsthop_transceiver_sessions(?:{.*})? (\S+)$", text, re.MULTILINE)
                )
            return found

        total += hosts[name].inside(ask)
    return total


def left(hosts: Hosts, name: str) -> str:
    """What there is of firsthop on a host."""
    looks = (
        "find / -xdev ( -path /proc -o -path /sys -o -path /tmp -o -path /root ) -prune -o -iname *firsthop* -print",
        "find /sys/fs/bpf /run -iname *firsthop*",
        "getent passwd firsthop",
        "nft list tables",
        "systemctl list-units --all --plain --no-legend *firsthop*",
        "pgrep --list-full --full firsthop",
    )
    return "\n".join(hosts[name].run(*look.split(), check=False) for look in looks)
