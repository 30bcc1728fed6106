"""The benchmark of calls runs, and what it hears is what was said. No test looks at a time that was measured."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import ROOT
from privileges import cannot_run

from bench.calls import report
from bench.calls.analysis import Heard, figures
from bench.calls.voice import FRAME_TICKS, Voice, encoded, speech
from rtc.codecs.opus import SILENCE
from rtc.rtp.packet import Packet

FRAMES = 150


@pytest.mark.needs_root
def test_a_short_run_hears_every_call(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        cannot_run("needs two cores, one for the load and one for the server")
    out = tmp_path / "calls.json"
    command = [sys.executable, "-m", "bench.calls", "--only", "firsthop,firsthop-echo", "--calls", "2"]
    command += ["--seconds", "1", "--patience", "0", "--skip", "quality,setup", "--json", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    result = json.loads(out.read_text())
    assert [sample["server"] for sample in result["samples"]] == ["firsthop", "firsthop-echo"]
    for sample in result["samples"]:
        assert "failed" not in sample, sample
        # 50 a second of each call, were it not for a busy machine.
        assert 50 <= sample["sent"] <= 150
        assert sample["returned"] > 0
        assert sample["placed"] > 0
        assert len(sample["setup_ms"]) == 2
        assert {"transceiver", "worker-0", "signaling", "supervisor"} <= set(sample["cpu"]["by"])
        assert sample["cpu"]["server"] > 0
    # A run that others disturbed has a star.
    assert re.search(r"^\| 2 \| firsthop (\\\* )?\|", run.stdout, re.MULTILINE)
    assert re.search(r"^\| 2 \| firsthop-echo (\\\* )?\|", run.stdout, re.MULTILINE)


@pytest.fixture(scope="module")
def voice() -> Voice:
    return encoded(speech())


def echoed(voice: Voice, *, late_s: float, without: tuple[int, ...] = (), renumbered: bool = False) -> Heard:
    """A call whose every packet comes back ``late_s`` later, but for some. With ``renumbered`` timestamps leave no
    gap where one is missing."""
    first = 30
    kept = [k for k in range(FRAMES) if k not in without]
    stamps = range(len(kept)) if renumbered else kept
    packets = [
        Packet(111, False, i, (0xFFFFF000 + stamp * FRAME_TICKS) & 0xFFFFFFFF, 7, voice.packets[first + k])
        for i, (stamp, k) in enumerate(zip(stamps, kept, strict=True))
    ]
    said = 1000 + 0.02 * np.arange(FRAMES)
    return Heard(packets, said[kept] + late_s, said, voice, first)


@pytest.mark.parametrize("late_s", [0.0005, 0.0805, 1.2])
def test_the_round_trip_is_found_by_ear(voice: Voice, late_s: float) -> None:
    trips = echoed(voice, late_s=late_s).round_trips()
    found = trips[~np.isnan(trips)]
    assert len(found) > FRAMES / 2
    assert found == pytest.approx(late_s, abs=1e-6)


def test_what_was_never_said_has_no_round_trip(voice: Voice) -> None:
    heard = echoed(voice, late_s=0.01)
    heard.said = heard.said + 100  # all of it was said later than it came
    assert np.isnan(heard.round_trips()).all()


def test_missing_frames_are_lost_and_silence_is_no_frame(voice: Voice) -> None:
    one = echoed(voice, late_s=0.01, without=(60, 61, 90))
    one.packets[70] = one.packets[70]._replace(payload=SILENCE)
    # An edge between two frames, so that none is on both sides.
    result = figures([one], (1000.99, 1001.99))
    assert (result["sent"], result["returned"], result["lost"]) == (50, 46, 4)
    assert result["near_schedule"] == 1.0


@pytest.mark.parametrize("renumbered", [False, True])
def test_what_is_missing_is_concealed_where_it_is_missing(voice: Voice, renumbered: bool) -> None:
    rate_hz = 16000
    whole = np.frombuffer(echoed(voice, late_s=0.01).pcm(rate_hz), np.int16)
    holed = echoed(voice, late_s=0.01, without=(50, 51), renumbered=renumbered).pcm(rate_hz)
    frame = rate_hz // 50
    there = np.frombuffer(holed, np.int16)
    assert len(there) == len(whole) == FRAMES * frame
    assert (there[: 50 * frame] == whole[: 50 * frame]).all()
    assert (there[50 * frame : 52 * frame] != whole[50 * frame : 52 * frame]).any()


def row(server: str, calls: int, cpu_ms: float, **more: Any) -> dict[str, Any]:
    usual = {
        "runs": 1,
        "trip_p50": 2.0,
        "trip_p99": 20.0,
        "near_schedule": 1.0,
        "server_share": 0.5,
        "disturbed": 0.0,
        "rss": 0,
    }
    return {"server": server, "calls": calls, "cpu_ms": cpu_ms, **usual, **more}


def test_a_target_that_is_missed_is_a_fail() -> None:
    points = [
        row("aiortc", 10, 40.0),
        row("firsthop", 1, 30.0, rss=100_000_000),
        row("firsthop", 50, 6.0, rss=247_000_000),
        row("firsthop", 100, 4.0, runs=0, failed="the server died"),
        row("firsthop-echo", 20, 3.0),
        row("janus", 20, 2.0),
    ]
    setup = [{"server": "firsthop", "rate": 30, "talking": 50, "setup_ms": [10.0, 300.0]}]
    heard = {"server": "firsthop", "loss": 0.1, "jitter_ms": 0, "nack": False, "stoi": 0.95, "asked_for": 0}
    judged = json.loads(json.dumps(report.targets({"points": points, "setup": setup, "quality": [heard]})))
    assert {row["target"]: row["pass"] for row in judged} == {
        "transcoding: CPU a call at 50 calls, of aiortc's at its 10": False,
        "passing on: CPU a call at 20 calls, of Janus's": True,
        "round trip transcoded at 50 calls, p50, ms": True,
        "round trip transcoded at 50 calls, p99 beyond p50, ms": False,
        "memory a call beyond the first, transcoded, MB": False,
        "frames within 5 ms of the schedule up to 80 % of a core, passed on, worst": True,
        "frames within 5 ms of the schedule up to 80 % of a core, transcoded, worst": True,
        "setup at 30 new calls a second beside 50 that talk, transcoded, p99, ms": False,
        "STOI at 10 % loss": True,
    }


def test_what_others_spoilt_counts_only_where_there_is_nothing_else() -> None:
    def sample(others: float, lost: int) -> dict[str, Any]:
        late = {"p50": 1.0, "p99": 1.0, "p99.9": 1.0, "max": 1.0}
        cpu = {"wall": 1.0, "server": 0.1, "by": {"one": 0.1}, "core": 0.2, "rss": 1, "others": others}
        heard = {"sent": 100, "lost": lost, "round_trip_ms": late, "off_schedule_ms": late, "near_schedule": 1.0}
        return {"server": "aiortc", "calls": 1, **heard, "load_share": 0.1, "load_late_ms": late, "cpu": cpu}

    failed = {"server": "aiortc", "calls": 2, "failed": "no answer"}
    calm, bad = report.medians([sample(0.9, 50), sample(0.0, 2), failed])
    assert (calm["runs"], calm["loss"]) == (2, 0.02)
    assert (bad["runs"], bad["failed"]) == (0, "no answer")
