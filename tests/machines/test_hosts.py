"""Booted hosts: they are Debian with systemd, reach each other by name, keep their disk, and leave nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT
from pyroute2 import netns
from waiting import until

from lab.machines.dead import remove_the_dead
from lab.machines.hosts import Hosts
from lab.machines.image import image

pytestmark = [pytest.mark.needs_root, pytest.mark.trials]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts("one", "two", image=image()) as hosts:
        yield hosts


def test_systemd_runs_and_nothing_failed(hosts: Hosts) -> None:
    for name in ("one", "two"):
        assert hosts[name].run("systemctl", "--failed", "--no-legend", "--plain").strip() == ""
        assert 'VERSION_ID="12"' in hosts[name].path("/etc/os-release").read_text()
        assert hosts[name].run("hostname").strip() == name
        assert sorted(hosts[name].run("ls", "/sys/class/net").split()) == ["eth0", "lo"]


def test_they_reach_each_other_and_the_operator_reaches_them(hosts: Hosts) -> None:
    reached = "import socket; socket.create_connection(('two', 22), 20); print('reached')"
    assert hosts["one"].run("python3", "-c", reached).strip() == "reached"
    ssh = hosts.operator.popen(["ssh", *hosts.ssh.split(), f"root@{hosts['two'].address}", "hostname"], stdout=-1)
    output, _ = ssh.communicate(timeout=60)
    assert output == b"two\n"


def test_the_kernels_programs_can_be_loaded_and_pinned(hosts: Hosts) -> None:
    assert hosts["one"].run("stat", "--file-system", "--format=%T", "/sys/fs/bpf").strip() == "bpf_fs"
    program = "from bcc import BPF; print(BPF(text='int f(void *c) { return 0; }').load_func('f', BPF.XDP).fd > 0)"
    assert hosts["one"].run("python3", "-c", program).strip() == "True"


def test_a_disk_outlives_a_reboot_and_a_power_cut(hosts: Hosts) -> None:
    one = hosts["one"]
    one.run("sh", "-c", "echo kept >/root/file && sync")
    boot = one.run("cat", "/proc/sys/kernel/random/boot_id")
    one.reboot()
    assert one.run("cat", "/root/file") == "kept\n"
    assert one.run("cat", "/proc/sys/kernel/random/boot_id") != boot
    one.cut_power()
    one.boot()
    assert one.run("cat", "/root/file") == "kept\n"


def running(word: str) -> list[str]:
    """The command lines of this machine's processes in which ``word`` stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line:
            found.append(line)
    return found


def test_nothing_is_left_of_hosts_that_are_closed() -> None:
    groups = Path("/sys/fs/cgroup")
    with Hosts("gone", image=image()) as hosts:
        group, directory = hosts["gone"].group, hosts["gone"].directory
        assert group in netns.listnetns()
        mark = hosts["gone"].netns
    assert group not in netns.listnetns()
    assert not directory.parent.exists()
    assert not list(groups.glob(f"**/{group}"))
    assert mark not in "".join(path.read_text() for path in Path("/proc/self").glob("mounts"))
    assert not running(group)


_OWNER = """
import json, time
from lab.machines.hosts import Hosts
from lab.machines.image import image

with Hosts("left", image=image()) as hosts:
    hosts.operator.popen(["sleep", "86399"])
    left = hosts["left"]
    print(json.dumps([left.group, str(left.directory.parent), str(left.path("/"))]), flush=True)
    time.sleep(600)
"""


def test_hosts_end_with_an_owner_that_is_terminated_and_the_next_one_removes_what_is_left() -> None:
    argv = [sys.executable, "-c", _OWNER]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            group, directory, root = json.loads(owner.stdout.readline())
        finally:
            owner.terminate()
    assert owner.returncode < 0  # it had no time to close them
    until(lambda: not running(group) and not Path(root).exists())
    assert group in netns.listnetns()
    remove_the_dead()
    assert not [name for name in netns.listnetns() if name.startswith(group.removesuffix("left"))]
    assert not Path(directory).exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{group}"))
    assert not running("sleep 86399")
