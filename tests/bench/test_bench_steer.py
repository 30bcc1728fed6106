"""The benchmark of the XDP program runs, and its figures are about what it says. No test looks at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT
from steer_run import loaded

from bpf.verdicts import VERDICTS


@pytest.mark.needs_root
def test_the_benchmark_measures_every_class_beside_an_empty_program(tmp_path: Path) -> None:
    with loaded():
        pass  # Skips where no program can be loaded.
    out = tmp_path / "steer.json"
    command = [sys.executable, "-m", "bench.steer", "--rounds", "2", "--repeats", "10", "--json", str(out)]
    table = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    result = json.loads(out.read_text())
    assert set(result["run"]) == {"kernel", "cpu", "date", "rounds", "repeats"}
    kinds = {v.label: v.kind for v in VERDICTS}
    assert {kinds[row["verdict"]] for row in result["classes"].values()} == {"steered", "passed", "dropped"}
    assert all(name in table for name in result["classes"])
    held = result["memory"]
    assert held["total_bytes"] == sum(held["bytes"].values()) > held["flows"] * 64
