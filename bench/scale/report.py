"""The report: the median of each layout, what it costs beside one worker and one transceiver, and the target."""

from __future__ import annotations

from typing import Any

from bench.harness.repeats import compared, median
from bench.harness.targets import Targets, table

__all__ = ["line", "markdown", "medians", "targets"]

Sample = dict[str, Any]
MOST = 1.1


def line(sample: Sample) -> str:
    """One sample, for whoever watches."""
    by = ", ".join(f"{name} {ms:.2f}" for name, ms in sample["by"].items() if ms >= 0.005)
    spread = " ".join(map(str, sample["per_transceiver"]))
    return (
        f"{sample['cpu_ms']:.2f} ms a call and second ({by}), calls {spread},"
        f" {sample['trip_p50']:.2f}/{sample['trip_p99']:.2f} ms there and back, {100 * sample['loss']:.2f} % lost"
    )


def medians(samples: list[Sample]) -> list[dict[str, Any]]:
    """One row for each layout and way. ``of_one`` is its cost by that of one worker and one transceiver, the median of
    the ratios within the repeats."""
    rows = []
    for key in dict.fromkeys((s["express"], s["layout"]) for s in samples):
        mine = {s["repeat"]: s for s in samples if (s["express"], s["layout"]) == key}
        ones = {s["repeat"]: s for s in samples if (s["express"], s["layout"]) == (key[0], "1 + 1")}
        row: dict[str, Any] = {"express": key[0], "layout": key[1], "calls": next(iter(mine.values()))["calls"]}
        for name in ("cpu_ms", "trip_p50", "trip_p99", "loss"):
            row[name] = median(s[name] for s in mine.values())
        names = dict.fromkeys(name for s in mine.values() for name in s["by"])
        row["by"] = {name: median(s["by"].get(name, 0.0) for s in mine.values()) for name in names}
        row["of_one"] = compared(mine, ones, lambda a, b: a["cpu_ms"] / b["cpu_ms"])
        rows.append(row)
    return rows


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each way has its target."""
    judged = Targets()
    for row in rows:
        if row["layout"] != "1 + 1":
            way = "past the workers" if row["express"] == "auto" else "by the workers"
            judged.judge(f"CPU of a call with {row['layout']}, of that with 1 + 1, {way}", row["of_one"], MOST)
    return judged.rows


def markdown(result: dict[str, Any]) -> str:
    """Targets and figures as tables."""
    lines = table(result["targets"])
    lines += [
        "| media goes | workers + transceivers | calls | CPU ms a call and second | of 1 + 1 | of it"
        " | there and back p50 / p99 ms | lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["points"]:
        way = "past the workers" if row["express"] == "auto" else "by the workers"
        by = ", ".join(f"{name} {ms:.2f}" for name, ms in row["by"].items() if ms >= 0.005)
        of = "" if row["of_one"] is None else f"{row['of_one']:.2f}"
        lines.append(
            f"| {way} | {row['layout']} | {row['calls']} | {row['cpu_ms']:.2f} | {of} | {by}"
            f" | {row['trip_p50']:.2f} / {row['trip_p99']:.2f} | {100 * row['loss']:.2f} % |"
        )
    return "\n".join(lines)
