"""Root in tests: the namespaces that need it, and the skip of a test that cannot have it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from paths import ROOT

from lab.network import Host

CLONE_NEWNET = 0x40000000  # sched.h

InNamespace = Callable[[Callable[[], None]], None]
"""Runs a function in a network namespace of its own."""

NOBODY: dict[str, Any] = {
    "user": 65534,
    "group": 65534,
    "extra_groups": [],
    "cwd": "/",
    "env": {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
}
"""Options of a subprocess in Python that may do nothing, and finds our packages."""


def cannot_run(reason: str) -> NoReturn:
    """Skips the test for ``reason``; fails it where the environment says CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def nft(host: Host, commands: str) -> None:
    """Has the firewall of a host of the lab do as nft(8) is told."""
    program = shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        cannot_run("needs Debian's nftables: run scripts/setup dev as root")
    subprocess.run(host.command([program, "-f", "-"]), input=commands, text=True, check=True)
