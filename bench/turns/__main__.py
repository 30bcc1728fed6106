"""Turn-taking as a caller hears it: whole calls through the lab, with espeak-ng's sentences, answered by the parrot.

The pauses between sentences are longer than the silence that ends a turn, and mostly shorter than that and the answer:
nearly every turn is answered, and nearly every answer is spoken over.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np

from bench.vad.material import RATE_HZ, noisy, speech
from lab.appliance import Appliance
from lab.network import Lab

RESULTS = Path(__file__).parent.parent / "results" / "turns.json"
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- made by make bench-turns -->\n", "<!-- end of turns -->\n"
CALLS = (1, 20, 50)
SECONDS = 45.0
SILENCE_MS = 500.0  # that ends a turn, by default
MOST_BEYOND_MS = 40.0
MOST_BARGE_IN_MS = 100.0
LOAD_CPU, SERVER_CPU = 0, 1
Row = dict[str, Any]


def main() -> None:
    rows = []
    with Lab() as lab, tempfile.TemporaryDirectory(prefix="bench-turns-") as name:
        directory = Path(name)
        wav = directory / "voice.wav"
        with wave.open(str(wav), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE_HZ)
            file.writeframes(noisy(speech(rounds=2), "clean"))
        with Appliance(directory, lab=lab, cores=[SERVER_CPU], transceiver_cores=[SERVER_CPU]) as appliance:
            for calls in CALLS:
                rows.append(run(lab, appliance, calls, wav))
                print(_line(rows[-1]), flush=True)
    result = {"date": time.strftime("%Y-%m-%d"), "kernel": platform.release(), "seconds": SECONDS, "rows": rows}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(before + BEGIN + markdown(result) + END + after)


def run(lab: Lab, appliance: Appliance, calls: int, wav: Path) -> Row:
    argv = [appliance.url, str(appliance.token_file), str(calls), str(SECONDS), str(wav)]
    client = lab.client.popen(
        ["taskset", "-c", str(LOAD_CPU), sys.executable, "-m", "bench.turns.client", *argv], stdout=subprocess.PIPE
    )
    said, _ = client.communicate(timeout=SECONDS + 120)
    if client.returncode:
        raise SystemExit(f"turns: the client of {calls} calls failed")
    measured = json.loads(said)
    if measured["failed"]:
        raise SystemExit(f"turns: {len(measured['failed'])} of {calls} calls failed: {measured['failed'][0]}")
    return {
        "calls": calls,
        "beyond_ms": _quantiles([sample - SILENCE_MS for sample in measured["response_ms"]]),
        "barge_in_ms": _quantiles(measured["barge_in_ms"]),
        "frames_lost": measured["frames_lost"],
        "caller_late_ms": measured["caller_late_ms"],
    }


def _quantiles(samples: list[float]) -> dict[str, float]:
    return {"samples": len(samples), **{f"p{q}": float(np.percentile(samples, q)) for q in (5, 50, 95, 99)}}


def markdown(result: Row) -> str:
    """The tables of the document."""
    rows = result["rows"]
    beyond = max(row["beyond_ms"]["p50"] for row in rows)
    barge_in = max(row["barge_in_ms"]["p95"] for row in rows)
    verdict = {True: "pass", False: "**fail**"}
    return "\n".join(
        [
            f"{result['seconds']:.0f} s a call; {result['date']}, Linux {result['kernel']}.",
            "",
            "| target | wanted | measured | |",
            "|---|---|---|---|",
            f"| end of speech to first sound, beyond the silence that is waited for, worst median, ms "
            f"| at most {MOST_BEYOND_MS:.0f} | {beyond:.0f} | {verdict[beyond <= MOST_BEYOND_MS]} |",
            f"| onset of speech to the agent's last sound, worst p95, ms | at most {MOST_BARGE_IN_MS:.0f} "
            f"| {barge_in:.0f} | {verdict[barge_in <= MOST_BARGE_IN_MS]} |",
            "",
            "| calls | turns answered | beyond the silence p5 / p50 / p95 ms | answers spoken over "
            "| barge-in p50 / p95 / p99 ms | frames lost |",
            "|---|---|---|---|---|---|",
            *(f"| {_line(row, ' | ')} |" for row in rows),
            "",
        ]
    )


def _line(row: Row, between: str = "  ") -> str:
    beyond, barge_in = row["beyond_ms"], row["barge_in_ms"]
    return between.join(
        [
            str(row["calls"]),
            str(beyond["samples"]),
            f"{beyond['p5']:.0f} / {beyond['p50']:.0f} / {beyond['p95']:.0f}",
            str(barge_in["samples"]),
            f"{barge_in['p50']:.0f} / {barge_in['p95']:.0f} / {barge_in['p99']:.0f}",
            str(row["frames_lost"]),
        ]
    )


if __name__ == "__main__":
    main()
