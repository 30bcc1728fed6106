"""The conditions that a figure was measured under, and the cores that it was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from typing import Any

__all__ = ["LOAD_CPU", "SERVER_CPU", "conditions", "debian_version", "pin", "say", "take_load_cpu"]

LOAD_CPU, SERVER_CPU = 0, 1


def conditions(**more: Any) -> dict[str, Any]:
    """Kernel, processor and date, and whatever else belongs to them."""
    with open("/proc/cpuinfo") as file:
        cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    return {"kernel": platform.release(), "cpu": cpu, "date": time.strftime("%Y-%m-%d", time.gmtime()), **more}


def debian_version(package: str) -> str:
    """The version of an installed package; empty where there is none."""
    command = ["dpkg-query", "-W", "-f", "${Version}", package]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()  # noqa: S603
    except FileNotFoundError:
        return ""


def pin(argv: list[str], cpu: int) -> list[str]:
    """The argv that runs ``argv`` on one core."""
    return ["taskset", "--cpu-list", str(cpu), *argv]


def take_load_cpu(name: str) -> None:
    """Keeps this process off the server's core. Ends it where there is no core for each."""
    if missing := {LOAD_CPU, SERVER_CPU} - os.sched_getaffinity(0):
        raise SystemExit(f"{name}: load and server need a core each, and there is no core {missing}")
    os.sched_setaffinity(0, {LOAD_CPU})


def say(text: str) -> None:
    """Tells whoever watches how far it is; the results are on standard output."""
    print(text, file=sys.stderr, flush=True)
