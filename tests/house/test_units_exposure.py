"""The units as systemd's own audit reads and scores them (systemd-analyze security)."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from paths import ROOT
from privileges import cannot_run

UNITS = {"firsthop-edge.service": 4.0, "firsthop-transceiver@.service": 2.5}


def analyze(*argv: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        cannot_run("needs systemd-analyze, of systemd")
    return subprocess.run(["systemd-analyze", "--no-pager", *argv], capture_output=True, text=True)


@pytest.mark.parametrize("name", UNITS)
def test_a_service_is_no_more_exposed_than_it_may_be(name: str) -> None:
    audit = ("security", "--offline=true", str(ROOT / "systemd" / name))
    bound = round(UNITS[name] * 10)
    scored = analyze(*audit, f"--threshold={bound}")
    assert (scored.returncode, scored.stderr) == (0, ""), scored.stdout  # there it names lines that it does not know
    assert analyze(*audit, "--threshold=1").returncode != 0  # the audit does look
