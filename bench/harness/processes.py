"""The processes of what is measured: started in order, awaited, and ended in the opposite order."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from bench.harness.cpu import seconds_of, tree
from lab.appliance import end
from wire import keys

__all__ = ["Started", "await_quiet", "started_processes", "write_secrets"]

_ENDS_S = 10

Started = Callable[[subprocess.Popen[Any]], subprocess.Popen[Any]]


@contextmanager
def started_processes() -> Iterator[Started]:
    """Gives a function that takes each process as it is started; they end with the block."""
    running: list[subprocess.Popen[Any]] = []

    def started(process: subprocess.Popen[Any]) -> subprocess.Popen[Any]:
        running.append(process)
        return process

    try:
        yield started
    finally:
        for process in reversed(running):
            end(process, _ENDS_S)


def await_quiet(process: subprocess.Popen[Any], *, quiet_s: float, within_s: float, idle_s: float = 0.0) -> bool:
    """Waits until it has started: until it and its children have used no more than ``idle_s`` seconds of CPU time for
    a while. Returns False where it ended before."""
    deadline = time.monotonic() + within_s
    used, since = -1.0, time.monotonic()
    while (now := time.monotonic()) - since < quiet_s:
        if process.poll() is not None or now > deadline:
            return False
        with suppress(psutil.NoSuchProcess):
            if (seconds := seconds_of(tree(process.pid))) > used + idle_s:
                used, since = seconds, now
        time.sleep(0.02)
    return True


def write_secrets(directory: Path, token: str) -> Mapping[str, Path]:
    """A cluster's key file and a file with one API key, which only their owner can read."""
    files = {"keys": directory / "cluster.toml", "token": directory / "token"}
    files["keys"].write_text(keys.new_file_text())
    files["token"].write_text(token + "\n")
    for file in files.values():
        file.chmod(0o600)
    return files
