"""Several booted hosts on one network, and the operator's place on it, from which they are reached.

::

    operator  10.83.0.1, a bridge in a namespace of its own
        |-- eth0 of the first machine   10.83.0.11
        |-- eth0 of the second          10.83.0.12
        ...

Nothing of it is joined to this machine's own network, so hosts of several test processes never meet. A checksum is
always filled in before a packet leaves, because XDP on an eth0 loses the mark that says that it is not.
"""

from __future__ import annotations

import atexit
import os
import platform
import secrets
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute, netns

from lab.links import LabError, address, await_links, entered, in_thread, join, set_checksum_offload_off, up
from lab.machines.dead import remove_the_dead, tag_of
from lab.machines.machine import Machine
from lab.network import Host

__all__ = ["Hosts"]

_BRIDGE = "br0"
_NETWORK = "10.83.0"
# systemd mounts it on hosts, and leaves it to others in containers.
_BPF = """[Unit]
DefaultDependencies=no
Before=basic.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mount -t bpf -o mode=700 bpf /sys/fs/bpf
"""
_SSH = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"


class Hosts:
    """Machines with these ``names``, booted from ``image``; they run from ``with`` to its end. Each is an item of it.
    Needs root. ``binds`` are folders of this machine that they may read, by their own path for each.

    ``operator`` is a place on their network, for callers and for Ansible. ``key`` is a private SSH key that root on
    each of them knows, and ``ssh`` are options for it.
    """

    operator: Host

    def __init__(self, *names: str, image: Path, binds: dict[str, Path] | None = None) -> None:
        self._names, self._image, self._binds = names, image, binds or {}
        self._directory = Path()
        self._machines: dict[str, Machine] = {}
        self._started: list[subprocess.Popen[Any]] = []
        self._tag = tag_of(os.getpid(), secrets.randbelow(1 << 16))

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise LabError("hosts that boot need root: run this with sudo")
        if shutil.which("systemd-nspawn") is None:
            raise LabError("systemd-nspawn boots the hosts, and is not installed: run scripts/setup dev")
        atexit.register(self.close)
        self._directory = Path(tempfile.mkdtemp(prefix=f"{self._tag}-"))
        try:
            in_thread(self._join)
            for machine in self._machines.values():
                machine.boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Machine:
        return self._machines[name]

    @property
    def key(self) -> Path:
        return self._directory / "key"

    @property
    def ssh(self) -> str:
        return f"-i {self.key} {_SSH}"

    def close(self) -> None:
        """Removes the machines and their network. Does nothing the second time."""
        atexit.unregister(self.close)
        for machine in self._machines.values():
            machine.remove()
        self._machines = {}
        for child in self._started:
            child.kill()
            child.wait()
        in_thread(self._leave)
        if self._directory.name:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _join(self) -> None:
        remove_the_dead()
        self.operator = Host(f"{self._tag}-operator", f"{_NETWORK}.1", self._started)
        netns.create(self.operator.name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)  # noqa: S603, S607
        with entered(self.operator.netns), IPRoute() as ip:
            up(ip, "lo")
            ip.link("add", ifname=_BRIDGE, kind="bridge")
            address(ip, _BRIDGE, self.operator.address)
            set_checksum_offload_off(_BRIDGE)
        for number, name in enumerate(self._names, 11):
            self._join_one(number, name)
        with entered(self.operator.netns), IPRoute() as ip:
            await_links(ip)

    def _join_one(self, number: int, name: str) -> None:
        namespace, ours, theirs = f"{self._tag}-{name}", f"to-{number}", f"{_NETWORK}.{number}"
        netns.create(namespace)
        join((self.operator.name, ours), (namespace, "eth0"), index=number)
        with entered(self.operator.netns), IPRoute() as ip:
            set_checksum_offload_off(ours)
            ip.link("set", index=up(ip, ours), master=ip.link_lookup(ifname=_BRIDGE)[0])
        with entered(f"/run/netns/{namespace}"), IPRoute() as ip:
            up(ip, "lo")
            address(ip, "eth0", theirs)
            set_checksum_offload_off("eth0")
            ip.route("add", dst="default", gateway=self.operator.address)
        directory = self._directory / name
        self._machines[name] = Machine(
            name, theirs, f"/run/netns/{namespace}", self._image, directory, namespace, self._binds
        )
        self._furnish(directory / "upper", name)

    def _furnish(self, root: Path, name: str) -> None:
        """Puts on a machine's disk what makes it this one."""
        hosts = [f"{_NETWORK}.{number} {each}" for number, each in enumerate(self._names, 11)]
        files = {
            "etc/hostname": f"{name}\n",
            "etc/hosts": "\n".join(["127.0.0.1 localhost", *hosts]) + "\n",
            "etc/machine-id": f"{uuid.uuid4().hex}\n",
            "etc/systemd/system/bpf.service": _BPF,
            "root/.ssh/authorized_keys": self.key.with_suffix(".pub").read_text(),
        }
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        (root / "etc/systemd/system/basic.target.wants").mkdir()
        (root / "etc/systemd/system/basic.target.wants/bpf.service").symlink_to("../bpf.service")
        for private in ("root", "root/.ssh"):
            (root / private).chmod(0o700)
        # The kernel is this machine's, and a host has the headers of its own.
        modules = root / "usr/lib/modules" / platform.release()
        modules.mkdir(parents=True)
        (common,) = self._image.glob("usr/src/linux-headers-*-common")
        for link, target in (("build", f"{common.name.removesuffix('-common')}-amd64"), ("source", common.name)):
            (modules / link).symlink_to(f"/usr/src/{target}")

    def _leave(self) -> None:
        for name in netns.listnetns():
            if name.startswith(f"{self._tag}-"):
                netns.remove(name)
