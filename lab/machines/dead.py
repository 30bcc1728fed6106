"""The removal of hosts whose owner ended without closing them, as a process does that is killed.

Such hosts power off with their owner (``Machine.boot``). Their network, control groups and disks stay, and so do
programs on the operator's place; the next owner removes these.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from pyroute2 import netns

from lab.network import Host

__all__ = ["remove_group", "remove_the_dead", "tag_of"]

# The owner's pid, and what tells its hosts from others of its.
_TAG = re.compile(r"(fhm(\d+)-[0-9a-f]{4})-.+")
_REMOVE_GROUP = """mount -t cgroup2 cgroup2 /sys/fs/cgroup
# What was killed a moment ago may still be there.
for _ in $(seq 100); do
    [ -d "/sys/fs/cgroup/$1" ] || exit 0
    find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} + && exit 0
    sleep 0.1
done
"""


def tag_of(pid: int, number: int) -> str:
    """What names of namespaces, control groups and folders of the process ``pid`` begin with."""
    return f"fhm{pid}-{number:04x}"


def remove_group(group: str) -> None:
    """Removes a host's control group, whose processes have ended, from the hierarchy that systemd has (cgroup v2)."""
    argv = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _REMOVE_GROUP, "remove", group]
    subprocess.run(argv, check=False, capture_output=True)  # noqa: S603


def remove_the_dead() -> None:
    """Ends what still runs on hosts of processes that are gone, and removes all that is left of them."""
    for name in netns.listnetns():
        if not _is_dead(name):
            continue
        with suppress(OSError):  # another process removes it too
            for pid in Host(name, "").pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            remove_group(name)
            netns.remove(name)
    for folder in Path(tempfile.gettempdir()).glob("fhm*"):
        if _is_dead(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _is_dead(name: str) -> bool:
    found = _TAG.fullmatch(name)
    return found is not None and not Path(f"/proc/{found[2]}").exists()
