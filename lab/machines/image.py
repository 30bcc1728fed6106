"""The image of a Debian 12 host with systemd, as mmdebstrap makes it from what this machine's apt is set up with."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.links import LabError
from lab.machines.places import cached

__all__ = ["HOST", "image"]

# What firsthop and its playbooks want of Debian (hosts of the lab reach no mirror), and what a host has that people log
# in to.
HOST = (
    "coturn",
    "dbus",
    "espeak-ng",
    "ethtool",
    "iproute2",
    "kmod",
    "libopus0",
    "linux-headers-amd64",
    "nftables",
    "openssh-server",
    "openssl",
    "procps",
    "prometheus",
    "python3-apt",
    "python3-bpfcc",
    "python3-venv",
    "redis-server",
    "systemd-sysv",
    "util-linux",
)
# Enabled by Debian when they are installed; a host that has just been set up runs none of them.
_NOT_YET = (
    "coturn nginx nftables prometheus prometheus-node-exporter redis-server apt-daily.timer apt-daily-upgrade.timer"
)
_HOOK = f"""set -e
for service in {_NOT_YET}; do chroot "$1" systemctl disable --quiet $service 2>/dev/null || true; done
rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap
"""
_SUITE = "bookworm"


def image(more: Sequence[str] = (), name: str = "image") -> Path:
    """The image's root folder, which is only ever read; made if there is none with the packages HOST and ``more``.
    Images of other packages have other names. Making one takes one to two minutes. Raises LabError."""
    packages = sorted({*HOST, *more})
    return cached(name, repr((packages, _HOOK, _SUITE)), lambda to: _make(packages, to))


def _make(packages: Sequence[str], to: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise LabError("mmdebstrap makes the image, and is not installed: run scripts/setup dev")
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as options:
        # Apt in the image is to reach what apt here reaches, while the image is made.
        dump = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True)  # noqa: S607
        options.write(dump.stdout)
        options.flush()
        # What it mounts below the folder goes with it, even if it is killed: the folder may be removed then.
        argv = ["unshare", "--mount", "--propagation", "private", "--"]
        argv += ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--format=directory"]
        argv += [
            f"--include={','.join(packages)}",
            f"--aptopt={options.name}",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=force-unsafe-io",  # an image half made is never mended
        ]
        argv += [f"--customize-hook={_HOOK}", _SUITE, str(to), *map(str, _sources())]
        done = subprocess.run(argv, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise LabError(f"the image of a Debian host cannot be made:\n{done.stderr[-4000:]}")


def _sources() -> list[Path]:
    etc = Path("/etc/apt")
    found = [etc / "sources.list", *sorted((etc / "sources.list.d").iterdir())]
    return [path for path in found if path.suffix in (".list", ".sources") and path.is_file() and path.stat().st_size]
