"""The report of the simulation: tables, plot, and the targets with a pass or a fail."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.harness import document
from bench.harness.targets import Targets, table
from bench.placement.simulation import Day

__all__ = ["PLOT", "figures", "into_documents", "line", "markdown"]

PLOT = document.DOCUMENT.with_name("placement.png")
_HOURS = 24
_TICKS_MS = (200, 500, 1000, 2000, 5000)
_PERCENTILES = (50, 90, 99, 99.9)
OURS, COMPARED = "firsthop", "least loaded"
Row = dict[str, Any]


def figures(name: str, day: Day, run_s: float) -> Row:
    """The figures of one way of placing."""
    hour = np.minimum((day.at * _HOURS).astype(int), _HOURS - 1)
    return {
        "strategy": name,
        "calls": day.calls,
        "ms": {f"p{q:g}": float(np.percentile(day.waited_ms, q)) for q in _PERCENTILES},
        "refused": day.refused,
        "refused_with_room": day.refused_with_room,
        "asked_again": day.asked_again,
        "dead_asked": day.dead_asked,
        "cut": day.cut,
        "spread": day.spread,
        "used": day.used,
        "run_s": run_s,
        "hours_p99": [_p99(day.waited_ms[hour == h]) for h in range(_HOURS)],
        "shares": [float(np.percentile(day.waited_ms, q)) for q in range(1, 100)],
    }


def _p99(waited_ms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    return float(np.percentile(waited_ms, 99)) if len(waited_ms) else None


def line(row: Row) -> str:
    """One row, for whoever watches."""
    ms = " / ".join(f"{value:.0f}" for value in row["ms"].values())
    return f"{row['strategy']}: {ms} ms, {row['refused']} of {row['calls']} refused, {row['run_s']:.0f} s"


def targets(result: Row) -> list[Row]:
    """The targets, each with its figure."""
    rows = {row["strategy"]: row for row in result["rows"]}
    judged = Targets()
    judged.judge(
        f"CPU time of a choice among {result['cost']['transceivers']:,}, p99, ms",
        result["cost"]["choose_us"]["p99"] / 1000,
        1.0,
    )
    if OURS in rows and COMPARED in rows:
        ratio = rows[OURS]["ms"]["p99"] / rows[COMPARED]["ms"]["p99"]
        judged.judge("time to first audio, p99, of least loaded's", ratio, 0.8)
    if OURS in rows:
        judged.judge("calls refused while a fit host has room", rows[OURS]["refused_with_room"], 0)
    return judged.rows


def markdown(result: Row) -> str:
    """The tables."""
    lines = [
        *table(targets(result)),
        "| placed by | first audio p50 / p90 / p99 / p99.9 ms | refused | of these while a fit host had room "
        "| asked in vain, of 1,000 calls: full | dead | spread of load |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        ms = " / ".join(f"{value:,.0f}" for value in row["ms"].values())
        share = 100 * row["refused"] / row["calls"]
        cells = (
            row["strategy"],
            ms,
            f"{share:.2f} %" if row["refused"] else "0",
            f"{row['refused_with_room']:,}",
            f"{1000 * row['asked_again'] / row['calls']:.1f}",
            f"{1000 * row['dead_asked'] / row['calls']:.2f}",
            f"{row['spread']:.3f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _cost(result)])


def _cost(result: Row) -> str:
    cost = result["cost"]
    count = cost["transceivers"]
    return (
        f"A choice among {count:,} takes {cost['choose_us']['p50']:.0f} µs (p50) or {cost['choose_us']['p99']:.0f} µs "
        f"(p99), entering a report {cost['report_us']:.0f} µs. A report is {cost['report_bytes']:.0f} bytes, so that "
        f"{count:,} transceivers say {count * cost['report_bytes'] / 1e6:.1f} MB a second; what becomes of these in "
        "Redis is in [directory.md](directory.md)."
    )


def into_documents(result: Row) -> None:
    """Writes tables and plot into the documents."""
    rows = result["rows"]
    how = (
        f"{result['transceivers']:,} transceivers in 20 regions, {result['edges']} edges, a day in "
        f"{result['day_s']:.0f} s with calls of {result['call_s']:.0f} s on average, {rows[0]['calls']:,} calls for "
        f"each way of placing; {result['date']}, {result['cpu']}."
    )
    _plot(result)
    picture = f"![Time to first audio by way of placing]({PLOT.name})"
    document.write("placement", f"{how}\n\n{picture}\n\n{markdown(result)}")


def _plot(result: Row) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4), layout="constrained")
    for row in result["rows"]:
        width = 2.5 if row["strategy"] == OURS else 1.2
        axes[0].plot(range(_HOURS), row["hours_p99"], label=row["strategy"], linewidth=width)
        axes[1].plot(row["shares"], range(1, 100), label=row["strategy"], linewidth=width)
    axes[0].set(xlabel="hour, UTC", title="time to first audio through the day, p99, ms", yscale="log")
    axes[1].set(xlabel="ms", xscale="log", title="% of the calls that hear audio within")
    axes[0].set_yticks(_TICKS_MS, labels=[f"{ms:,}" for ms in _TICKS_MS])
    axes[1].set_xticks(_TICKS_MS, labels=[f"{ms:,}" for ms in _TICKS_MS])
    for ax in axes:
        ax.minorticks_off()
        ax.grid(visible=True, alpha=0.3)
        ax.legend()
    figure.savefig(PLOT, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
