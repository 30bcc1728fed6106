"""The benchmark of the relays runs, and every datagram of its load is accounted for. No test looks at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import cannot_run

from bench.relay import report

ROOT = Path(__file__).parent.parent


@pytest.mark.needs_root
def test_a_short_run_accounts_for_every_datagram(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        cannot_run("needs gcc, to build the load: run scripts/setup dev as root")
    if len(os.sched_getaffinity(0)) < 2:
        cannot_run("needs two cores, one for the load and one for the relay")
    out = tmp_path / "relay.json"
    command = [sys.executable, "-m", "bench.relay", "--only", "direct,floor,firsthop", "--rates", "2000"]
    command += ["--flows", "10", "--seconds", "1", "--repeats", "1", "--patience", "0", "--skip", "saturation"]
    run = subprocess.run([*command, "--skip", "memory", "--json", str(out)], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    result = json.loads(out.read_text())
    assert [sample["relay"] for sample in result["samples"]] == ["direct", "floor", "firsthop"]
    for sample in result["samples"]:
        load = sample["load"]
        assert load["sent"] == load["received"] + load["lost"]
        assert load["received"] <= load["arrived"] <= load["sent"]
        assert load["sent"] > 0
        assert load["received"] > 0
        assert load["duplicates"] == load["ring_drops"] == 0
        assert load["up_us"]["p50"] <= load["up_us"]["p99.9"] <= 1.02 * load["up_us"]["max"]
    rows = {row["relay"]: row for row in result["points"]}
    assert rows["direct"]["relay_us"] == 0
    assert rows["firsthop"]["relay_us"] > 0
    assert "| 2,000 | 10 | firsthop |" in run.stdout


def row(rate: int, share: float | None = None, **figures: Any) -> dict[str, Any]:
    return {"relay": "firsthop", "rate": rate, "share": share, "lost": 0, "achieved": rate, **figures}


def test_a_target_that_is_missed_is_a_fail() -> None:
    points = [row(20_000, of_nginx=0.6, added_p99_ms=0.5), row(70_000, 0.7), row(150_000, 1.5) | {"achieved": 89_000}]
    judged = report.targets({"points": points, "saturation": {"firsthop": {"achieved": 100_000}}})
    verdicts = {row["target"]: row["pass"] for row in judged}
    assert verdicts == {
        "CPU a datagram at 20 kpps, of nginx's": False,
        "added one way at 20 kpps, p99, ms": True,
        "lost at up to 70 % of saturation": True,
        "throughput beyond saturation, of the peak": False,
    }
