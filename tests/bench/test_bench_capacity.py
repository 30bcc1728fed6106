"""The benchmark of capacity: the frames that it takes for late, and how it judges. No test looks at what a run took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from privileges import cannot_run

from bench.capacity import report
from bench.capacity.schedule import Arrivals, Frames

TICKS = 960


def arrivals(count: int, *, without: tuple[int, ...] = (), late: dict[int, float] | None = None) -> Arrivals:
    """A call from second 100 on whose packets came at once, but for some."""
    found = Arrivals()
    for k in range(count):
        if k not in without:
            found.sequences.append((65530 + k) & 0xFFFF)
            found.timestamps.append((2**32 - 5000 + k * TICKS) & 0xFFFFFFFF)
            found.came.append(100 + 0.02 * k + (late or {}).get(k, 0.0))
    return found


def test_a_call_on_schedule_keeps_every_frame() -> None:
    assert arrivals(200).frames(101.0, 103.0).kept == 1
    assert arrivals(200).frames(101.0, 103.0).due == pytest.approx(100, abs=1)


def test_a_frame_is_late_beyond_5_ms_and_its_own_length_and_lost_where_it_never_came() -> None:
    call = arrivals(200, without=(70, 71), late={80: 0.024, 90: 0.026, 20: 0.5})
    frames = call.frames(101.0, 103.0)
    assert (frames.late, frames.lost) == (1, 2)
    assert frames.kept == pytest.approx(1 - 3 / frames.due)


def test_a_call_that_falls_silent_has_lost_the_rest() -> None:
    frames = arrivals(100).frames(101.0, 103.0)
    assert frames.lost == pytest.approx(50, abs=2)
    assert Arrivals().frames(101.0, 103.0) == Frames(100, 0, 100)


def test_a_server_that_leaves_frames_out_is_late_until_one_is_used_to_it() -> None:
    late = {k: 0.1 for k in range(60, 200)}
    frames = arrivals(200, late=late).frames(100.5, 103.9)
    assert frames.late == pytest.approx(49, abs=1)


def test_what_an_echo_did_not_get_is_lost_though_its_own_numbers_have_no_gap() -> None:
    call = arrivals(200, without=(70,))
    call.sent = [100 + 0.02 * k for k in range(200) if k != 70]
    call.sequences = list(range(199))
    assert call.frames(101.0, 103.0).lost == 1


def sample(fixed: int | None, calls: float, kept: float = 1.0, **more: Any) -> dict[str, Any]:
    waits = {"p50": 5.0, "p99": 20.0, "p99.9": 30.0, "max": 30.0}
    one = {"agent": "echo", "fixed": fixed, "callers": 30, "calls": calls, "kept": kept, "due": 1000, "late": 0}
    one |= {
        "lost": 0,
        "refused": {"HTTP 503": 9},
        "refused_ms": waits,
        "load_share": 0.1,
        "others": 0.0,
        "slowest": 1.1,
    }
    return one | {"others": 0.0, "slowest": 1.1} | more


def judged(*samples: dict[str, Any]) -> dict[str, bool]:
    result: dict[str, Any] = {"samples": list(samples), "points": report.medians(list(samples))}
    result["targets"] = report.targets(result)
    run = {"offered": 3, "seconds": 8.0, "cpu": "c", "kernel": "k", "date": "d"}
    assert "| echo | measured |" in report.markdown({**result, "run": run})
    return {row["target"].partition(": ")[2]: row["pass"] for row in result["targets"]}


def test_what_was_let_in_is_judged_by_the_best_fixed_number() -> None:
    good = judged(sample(None, 90), sample(90, 90), sample(104, 104), sample(120, 119, kept=0.9))
    assert set(good.values()) == {True}
    off = "calls let in, off the best fixed number"
    assert not judged(sample(None, 80), sample(104, 104))[off]
    assert not judged(sample(None, 90, kept=0.99), sample(90, 90))["frames kept of the calls let in"]
    turned = judged(sample(None, 90, refused={"HTTP 503": 9, "TimeoutError": 1}), sample(90, 90))
    assert not turned["callers turned away by anything but 503"]


def test_a_best_number_beyond_which_none_was_tried_is_said_to_be_that() -> None:
    for found, note in (
        ((sample(None, 90), sample(104, 104), sample(120, 119, kept=0.9)), ""),
        ((sample(None, 90), sample(104, 104), sample(90, 90)), "a larger one was not tried"),
    ):
        rows = report.targets({"points": report.medians(list(found))})
        assert [row["note"] for row in rows if "best fixed" in row["target"]] == [note]


@pytest.mark.needs_root
def test_a_short_run_hears_calls_that_were_let_in(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        cannot_run("needs two cores, one for the load and one for the server")
    out = tmp_path / "capacity.json"
    command = [sys.executable, "-m", "bench.capacity", "--only", "echo", "--guess", "1", "--minutes", "0"]
    command += ["--settle", "1.5", "--seconds", "1", "--json", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    (one,) = json.loads(out.read_text())["samples"]
    assert "failed" not in one, one
    assert (one["agent"], one["fixed"], one["callers"]) == ("echo", None, 3)
    assert one["calls"] > 0
    assert one["due"] > 0
