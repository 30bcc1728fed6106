"""The units as systemd's own audit reads and scores them (systemd-analyze security)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from paths import ROOT
from privileges import cannot_run

UNITS = {
    "systemd/firsthop-edge.service": 4.0,
    "systemd/firsthop-transceiver@.service": 2.5,
    "ansible/roles/turn/templates/firsthop-turn.service.j2": 2.0,
}


def analyze(*argv: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        cannot_run("needs systemd-analyze, of systemd")
    return subprocess.run(["systemd-analyze", "--no-pager", *argv], capture_output=True, text=True)


@pytest.mark.parametrize("name", UNITS)
def test_a_service_is_no_more_exposed_than_it_may_be(name: str, tmp_path: Path) -> None:
    unit = shutil.copy(ROOT / name, tmp_path / Path(name).name.removesuffix(".j2"))
    audit = ("security", "--offline=true", str(unit))
    bound = round(UNITS[name] * 10)
    scored = analyze(*audit, f"--threshold={bound}")
    assert (scored.returncode, scored.stderr) == (0, ""), scored.stdout  # there it names lines that it does not know
    assert analyze(*audit, "--threshold=1").returncode != 0  # the audit does look
