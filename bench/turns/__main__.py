"""Turn-taking as a caller hears it: whole calls through the lab, with espeak-ng's sentences, answered by the parrot.

The pauses between sentences are longer than the silence that ends a turn, and mostly shorter than that and the answer:
nearly every turn is answered, and nearly every answer is spoken over.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bench.harness import document
from bench.harness.conditions import SERVER_CPU, conditions
from bench.harness.document import results_file, save
from bench.harness.targets import Targets, table
from bench.turns.callers import converse, quantiles, recorded
from bench.vad.material import RATE_HZ, noisy, speech
from lab.appliance import Appliance
from lab.network import Lab

RESULTS = results_file("turns")
CALLS = (1, 20, 50)
SECONDS = 45.0
SILENCE_MS = 500.0  # that ends a turn, by default
MOST_BEYOND_MS = 40.0
MOST_BARGE_IN_MS = 100.0
Row = dict[str, Any]


def main() -> None:
    argparse.ArgumentParser(prog="bench.turns", description=(__doc__ or "").splitlines()[0]).parse_args()
    rows = []
    with Lab() as lab, tempfile.TemporaryDirectory(prefix="bench-turns-") as name:
        directory = Path(name)
        wav = directory / "voice.wav"
        recorded(wav, RATE_HZ, noisy(speech(rounds=2), "clean"))
        with Appliance(directory, lab=lab, cores=[SERVER_CPU], transceiver_cores=[SERVER_CPU]) as appliance:
            for calls in CALLS:
                rows.append(run(lab, appliance, calls, wav))
                print(_line(rows[-1]), flush=True)
    result = conditions(seconds=SECONDS, rows=rows)
    save(result, RESULTS)
    document.write("turns", markdown(result))


def run(lab: Lab, appliance: Appliance, calls: int, wav: Path) -> Row:
    measured = converse(lab, appliance, calls, SECONDS, wav)
    return {
        "calls": calls,
        "beyond_ms": _quantiles([sample - SILENCE_MS for sample in measured["response_ms"]]),
        "barge_in_ms": _quantiles(measured["barge_in_ms"]),
        "frames_lost": measured["frames_lost"],
        "caller_late_ms": measured["caller_late_ms"],
    }


def _quantiles(samples: list[float]) -> dict[str, float]:
    return {"samples": len(samples), **quantiles(samples, 5, 50, 95, 99)}


def markdown(result: Row) -> str:
    """The tables of the document."""
    rows = result["rows"]
    beyond = max(row["beyond_ms"]["p50"] for row in rows)
    barge_in = max(row["barge_in_ms"]["p95"] for row in rows)
    targets = Targets()
    name = "end of speech to first sound, beyond the silence that is waited for, worst median, ms"
    targets.judge(name, beyond, MOST_BEYOND_MS)
    targets.judge("onset of speech to the agent's last sound, worst p95, ms", barge_in, MOST_BARGE_IN_MS)
    return "\n".join(
        [
            f"{result['seconds']:.0f} s a call; {result['date']}, Linux {result['kernel']}.",
            "",
            *table(targets.rows),
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
