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
from paths import ROOT
from privileges import cannot_run

from bench.relay import report

ONE_OF_EACH = ["direct", "routed", "express", "between", "floor", "firsthop"]


@pytest.mark.needs_root
def test_a_short_run_accounts_for_every_datagram(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        cannot_run("needs gcc, to build the load: run scripts/setup dev as root")
    if len(os.sched_getaffinity(0)) < 2:
        cannot_run("needs two cores, one for the load and one for the relay")
    out = tmp_path / "relay.json"
    command = [sys.executable, "-m", "bench.relay", "--only", ",".join(ONE_OF_EACH), "--rates", "2000"]
    command += ["--flows", "10", "--seconds", "1", "--repeats", "1", "--patience", "0", "--skip", "saturation"]
    run = subprocess.run([*command, "--skip", "memory", "--json", str(out)], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    result = json.loads(out.read_text())
    assert [sample["relay"] for sample in result["samples"]] == ONE_OF_EACH
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
    assert "| 2,000 | 10 | express |  |  |  |" in run.stdout  # no process relayed anything


def row(rate: int, share: float | None = None, **figures: Any) -> dict[str, Any]:
    return {"relay": "firsthop", "rate": rate, "share": share, "most_lost": 0, "least_achieved": rate} | figures


def test_a_target_that_is_missed_is_a_fail() -> None:
    points = [
        row(20_000, of_nginx=0.6, added_p99_ms=0.5),
        row(70_000, 0.7),
        row(150_000, 1.5, least_achieved=89_000),
        row(200_000, least_achieved=95_000, of_coturn=0.5, loss=0.52),
    ]
    judged = report.targets({"points": points, "saturation": {"firsthop": {"achieved": 100_000}}})
    assert {row["target"]: (row["pass"], row["note"]) for row in judged} == {
        "CPU a datagram at 20 kpps, of nginx's": (False, ""),
        "CPU a datagram at 200 kpps, of coturn's": (True, "but 52 % was lost"),
        "added one way at 20 kpps, p99, ms": (True, ""),
        "lost at up to 70 % of saturation, worst run": (True, ""),
        "throughput beyond saturation, of the peak, worst run": (False, ""),
    }


@pytest.mark.parametrize(
    ("way", "name", "where"), [("express", "past the worker", ""), ("between", "to another host", "-far")]
)
def test_what_goes_past_the_worker_is_judged_beside_relays_with_their_backend_there(
    way: str, name: str, where: str
) -> None:
    points = [
        row(20_000, machine_over_direct_us=0.5, most_wrong=0, checked=0, added_p50_ms=0.01, added_p99_ms=0.3),
        row(200_000, machine_over_routed_us=0.4, most_wrong=1, checked=9, most_lost=3),
    ]
    points = [{**point, "relay": way} for point in points]
    peers = {f"nginx{where}": 10, f"coturn{where}": 4}
    points += [{**row(20_000, machine_over_direct_us=us), "relay": peer} for peer, us in peers.items()]
    judged = report.targets({"points": points})
    assert {row["target"].removeprefix(f"{name}: "): row["pass"] for row in judged} == {
        f"machine over direct at 20 kpps, of nginx{where}'s": True,
        f"machine over direct at 20 kpps, of coturn{where}'s": False,
        "machine over routing at 200 kpps, µs": True,
        "lost at 200 kpps, worst run": False,
        "wrong checksums at the client, worst run": False,
        "added one way at 20 kpps, p50, ms": True,
        "added one way at 20 kpps, p99, ms": False,
    }


def sample(repeat: int, others: float, lost: int) -> dict[str, Any]:
    late = {"p50": 1.0, "p99": 1.0, "p99.9": 1.0, "max": 1.0}
    load = {"seconds": 1.0, "sent": 1000, "received": 1000 - lost, "arrived": 1000, "lost": lost, "duplicates": 0}
    cpu = {"wall": 1.0, "load_core": 0.5, "relay": 0.1, "machine": 0.2, "others": others}
    point = {"relay": "firsthop", "rate": 1000, "flows": 1, "share": None, "repeat": repeat}
    return {**point, "load": {**load, "up_us": late, "down_us": late}, "cpu": cpu}


def test_what_others_spoilt_counts_only_where_there_is_nothing_else() -> None:
    (row,) = report.medians([sample(0, 0.9, 500), sample(1, 0.0, 0), sample(2, 0.0, 2)])
    assert (row["runs"], row["lost"], row["most_lost"]) == (2, 1, 2)
    (row,) = report.medians([sample(0, 0.9, 500)])
    assert (row["runs"], row["lost"]) == (1, 500)
