"""Wheels for machines that reach no package index: firsthop's own, built from this source, and all that it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lab.machines.places import SOURCE, cached

__all__ = ["build", "copy_source", "wheelhouse"]

_NOT_SOURCE = (
    "dist",
    ".git",
    ".venv*",
    ".machines",
    ".*_cache",
    "__pycache__",
    "node_modules",
    "artifacts",
    "inventory",
    "build",
    "*.egg-info",
)

_EARLIEST = "315532800"  # 1980, where ZIP begins


def copy_source(to: Path) -> Path:
    """Copies the source to the folder ``to``, which is made, without what is made from it; building leaves files."""
    return shutil.copytree(SOURCE, to, ignore=shutil.ignore_patterns(*_NOT_SOURCE), symlinks=True)


def build(source: Path, to: Path, kind: str = "wheel") -> Path:
    """Builds the source distribution (``kind`` is "sdist") or the wheel of ``source`` in the folder ``to``, with the
    setuptools of this environment and nothing from elsewhere. Returns its file. The same source makes the same wheel,
    whose files are all of the time SOURCE_DATE_EPOCH, the earliest that an archive knows where there is none."""
    program = f"import setuptools.build_meta as b, sys; print(b.build_{kind}(sys.argv[1]))"
    to.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-I", "-c", program, str(to)]
    environment = {"SOURCE_DATE_EPOCH": _EARLIEST, **os.environ}
    done = subprocess.run(argv, cwd=source, env=environment, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise RuntimeError(done.stderr)
    return to / done.stdout.split()[-1]


def wheelhouse() -> Path:
    """The folder of the wheels that requirements/base.txt pins, which is also there; downloaded once."""
    pins = SOURCE / "requirements/base.txt"

    def download(to: Path) -> None:
        argv = [sys.executable, "-m", "pip", "download", "-qq", "--require-hashes", "--only-binary", ":all:"]
        subprocess.run([*argv, "--requirement", str(pins), "--dest", str(to)], check=True)  # noqa: S603
        shutil.copy(pins, to)

    return cached("wheels", pins.read_text(), download)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("wheel", "sdist"):
            print(build(copy_source(Path(folder) / kind), Path(sys.argv[1]).absolute(), kind))
