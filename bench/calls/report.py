"""The report of the samples: medians, tables, plots, and the targets with a pass or a fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.calls.analysis import quantiles
from bench.calls.servers import PASSING
from bench.harness import document
from bench.harness.repeats import median
from bench.harness.targets import Targets, table
from bench.harness.undisturbed import DISTURBED

__all__ = [
    "JUDGED_RATE",
    "bears",
    "disturbed",
    "into_documents",
    "line",
    "markdown",
    "medians",
    "quality_line",
    "setup_line",
    "targets",
]

Sample = dict[str, Any]
# A server that loses more than this is asked to hold no more calls.
OVER = 0.05
# Beyond this share of its core a server is not asked to keep to its schedule.
BUSY = 0.8
# New calls a second.
JUDGED_RATE = 30
JUDGED_LOSS = 0.1

PLOT = document.DOCUMENT.with_name("calls.png")


def loss(sample: Sample) -> float:
    """The share of the frames said that did not come back."""
    return float(sample["lost"] / max(1, sample["sent"]))


def bears(sample: Sample) -> bool:
    """Whether the server held so many calls."""
    return "failed" not in sample and loss(sample) <= OVER


def disturbed(sample: Sample) -> float:
    """The share of a core that other processes took meanwhile."""
    return 0.0 if "failed" in sample else float(sample["cpu"]["others"] / sample["cpu"]["wall"])


def line(sample: Sample) -> str:
    """One sample as a line, for whoever watches."""
    if "failed" in sample:
        return f"failed: {sample['failed']}"
    f = figures(sample)
    by = ", ".join(f"{name} {ms:.2f}" for name, ms in f["by"].items() if ms >= 0.005)
    others = f", others {100 * disturbed(sample):.0f} %" if disturbed(sample) >= 0.01 else ""
    trip = "none heard" if f["trip_p50"] is None else f"{f['trip_p50']:.2f}/{f['trip_p99']:.2f} ms there and back"
    return f"{f['cpu_ms']:.2f} ms a call and second ({by}), {trip}, {100 * f['loss']:.2f} % lost{others}"


def setup_line(row: dict[str, Any]) -> str:
    """The time that new calls took, as a line for whoever watches."""
    beside = f" beside {row['talking']}" if row["talking"] else ""
    failed = f", {row['failed']} failed: {row['why']}" if row["failed"] else ""
    times = _pair(quantiles(row["setup_ms"]), "p50", "p99")
    return f"{row['rate']:4} new calls a second{beside}: {times} ms{failed}, load {100 * row['load_share']:.0f} %"


def quality_line(row: dict[str, Any]) -> str:
    """The quality of speech that came back, as a line for whoever watches."""
    nack = f", {row['asked_for']} asked for again" if row["nack"] else ""
    return f"{_condition(row)}{nack}: STOI {row['stoi']:.3f}, PESQ {row['pesq']:.2f}"


def figures(sample: Sample) -> dict[str, Any]:
    """The figures of one sample: milliseconds of CPU time a call and second, of the server and of its processes;
    milliseconds that the voice took and that it was off its schedule; shares of a core."""
    cpu, calls = sample["cpu"], sample["calls"]
    ms = 1000 / cpu["wall"] / calls
    trip, off = sample["round_trip_ms"], sample["off_schedule_ms"]
    return {
        "cpu_ms": cpu["server"] * ms,
        "by": {name: round(seconds * ms, 4) for name, seconds in cpu["by"].items()},
        "core_ms": cpu["core"] * ms,
        "core_share": cpu["core"] / cpu["wall"],
        "server_share": cpu["server"] / cpu["wall"],
        "load_share": sample["load_share"],
        "trip_p50": trip["p50"],
        "trip_p99": trip["p99"],
        "off_p99": off["p99"],
        "off_p999": off["p99.9"],
        "near_schedule": sample["near_schedule"],
        "loss": loss(sample),
        "rss": cpu["rss"],
        "load_late_p99": sample["load_late_ms"]["p99"],
    }


def medians(samples: list[Sample]) -> list[dict[str, Any]]:
    """One row for each server and number of calls. Samples that others disturbed are left out where there is another; a
    run that failed has its reason."""
    rows = []
    for server, calls in dict.fromkeys((s["server"], s["calls"]) for s in samples):
        mine = [s for s in samples if (s["server"], s["calls"]) == (server, calls)]
        good = [s for s in mine if "failed" not in s]
        row: dict[str, Any] = {"server": server, "calls": calls, "runs": len(good)}
        if not good:
            rows.append(row | {"failed": mine[0]["failed"]})
            continue
        all_ = [figures(s) for s in ([s for s in good if disturbed(s) <= DISTURBED] or good)]
        row["disturbed"] = round(min(disturbed(s) for s in good), 3)
        for name in all_[0]:
            if name == "by":
                row["by"] = {p: median(f["by"].get(p, 0.0) for f in all_) for p in all_[0]["by"]}
            else:
                row[name] = median(f[name] for f in all_ if f[name] is not None)
        rows.append(row)
    return rows


def _one(points: list[dict[str, Any]], server: str, calls: int) -> dict[str, Any]:
    return next((row for row in points if (row["server"], row["calls"]) == (server, calls) and row["runs"]), {})


def rss_per_call(points: list[dict[str, Any]], row: dict[str, Any]) -> float | None:
    """Megabytes for each call beyond the first."""
    first = _one(points, row["server"], 1)
    if not first or row["calls"] <= 1:
        return None
    return float(round((row["rss"] - first["rss"]) / (row["calls"] - 1) / 1e6, 3))


def targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The targets of firsthop, each with its figure; those that were not measured are left out."""
    points = result["points"]
    judged = Targets()
    judge = judged.judge

    def ratio(mine: dict[str, Any], theirs: dict[str, Any]) -> float | None:
        return mine["cpu_ms"] / theirs["cpu_ms"] if mine and theirs else None

    stock = _one(points, "aiortc", 10)
    for calls in (20, 50, 100):
        row = _one(points, "firsthop", calls)
        judge(f"transcoding: CPU a call at {calls} calls, of aiortc's at its 10", ratio(row, stock), 0.125)
    for calls, limit in ((20, 2.0), (100, 1.0)):
        row = _one(points, "firsthop-echo", calls)
        judge(f"passing on: CPU a call at {calls} calls, of Janus's", ratio(row, _one(points, "janus", calls)), limit)
    for server, how, limit in (("firsthop-echo", "passed on", 3.0), ("firsthop", "transcoded", 45.0)):
        if row := _one(points, server, 50):
            judge(f"round trip {how} at 50 calls, p50, ms", row["trip_p50"], limit)
            spread = None if row["trip_p50"] is None else row["trip_p99"] - row["trip_p50"]
            judge(f"round trip {how} at 50 calls, p99 beyond p50, ms", spread, 10.0)
    for server, how in (("firsthop-echo", "passed on"), ("firsthop", "transcoded")):
        rows = [row for row in points if row["server"] == server and row["runs"]]
        largest: dict[str, Any] = max((row for row in rows), key=lambda row: row["calls"], default={})
        if largest:
            judge(f"memory a call beyond the first, {how}, MB", rss_per_call(points, largest), 1.0)
        kept = [row for row in rows if row["server_share"] <= BUSY]
        kept = [row for row in kept if row["disturbed"] <= DISTURBED] or kept
        name = f"frames within 5 ms of the schedule up to 80 % of a core, {how}, worst"
        judge(name, min((row["near_schedule"] for row in kept), default=None), 0.999, at_least=True)
    for row in result.get("setup", ()):
        if row["server"].startswith("firsthop") and row["talking"] and row["rate"] == JUDGED_RATE:
            how = "passed on" if row["server"] in PASSING else "transcoded"
            name = f"setup at {row['rate']} new calls a second beside {row['talking']} that talk, {how}, p99, ms"
            judge(name, quantiles(row["setup_ms"])["p99"], 200)
    for row in result.get("quality", ()):
        if row["server"] == "firsthop" and row["loss"] == JUDGED_LOSS and (row["asked_for"] or not row["nack"]):
            how = ", NACK answered" if row["nack"] else ""
            judge(f"STOI at {_condition(row)}{how}", row["stoi"], 0.9, at_least=True)
    return judged.rows


def _condition(row: dict[str, Any]) -> str:
    return f"{row['jitter_ms']} ms jitter" if row["jitter_ms"] else f"{100 * row['loss']:.0f} % loss"


def markdown(result: dict[str, Any]) -> str:
    """Targets and figures as tables."""
    points = result["points"]
    lines = table(result["targets"])
    for title, wanted in (("transcoded", False), ("passed on", True)):
        rows = [row for row in points if (row["server"] in PASSING) == wanted]
        if rows:
            lines += _table(title, rows, points)
    if rows := result.get("setup", []):
        lines += _setup_table(rows)
    if rows := result.get("quality", []):
        lines += _quality_table(rows)
    return "\n".join(lines).rstrip("\n")


def _table(title: str, rows: list[dict[str, Any]], points: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"| {title}: calls | server | CPU ms a call and second | of which | core ms | round trip p50 / p99 ms"
        " | off schedule p99 / p99.9 ms | lost | MB a call | load's core |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["calls"]):
        if not row["runs"]:
            lines.append(f"| {row['calls']} | {row['server']} | {row['failed']} | | | | | | | |")
            continue
        by = ", ".join(f"{name} {ms:.2f}" for name, ms in row["by"].items() if ms >= 0.005)
        rss = rss_per_call(points, row)
        cells = (
            row["calls"],
            row["server"] + (" \\*" if row["disturbed"] > DISTURBED else ""),
            f"{row['cpu_ms']:.2f}",
            by if len(row["by"]) > 1 else "",
            f"{row['core_ms']:.2f}",
            _pair(row, "trip_p50", "trip_p99"),
            _pair(row, "off_p99", "off_p999"),
            f"{100 * row['loss']:.2f} %",
            "" if rss is None else f"{rss:.2f}",
            f"{100 * row['load_share']:.0f} %",
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return [*lines, ""]


def _setup_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| new calls a second | talking | server | setup p50 / p99 ms | failed | load's core |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["talking"], row["rate"])):
        times = _pair(quantiles(row["setup_ms"]), "p50", "p99")
        failed = f"{row['failed']} of {row['failed'] + len(row['setup_ms'])}"
        cells = (row["rate"], row["talking"], row["server"], times, failed, f"{100 * row['load_share']:.0f} %")
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return [*lines, ""]


def _quality_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| uplink | server | STOI | PESQ | asked for again | STOI then | PESQ then |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["jitter_ms"], row["loss"])):
        if row["nack"]:
            continue
        key = (row["server"], row["loss"])
        nacked = next((r for r in rows if r["nack"] and (r["server"], r["loss"]) == key and not row["jitter_ms"]), None)
        more = ["", "", ""]
        if nacked:
            more = [str(nacked["asked_for"]), "", ""]
            if nacked["asked_for"]:
                more[1:] = [f"{nacked['stoi']:.3f}", f"{nacked['pesq']:.2f}"]
        cells = (_condition(row), row["server"], f"{row['stoi']:.3f}", f"{row['pesq']:.2f}", *more)
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _pair(row: dict[str, Any], *names: str) -> str:
    return " / ".join("—" if row[name] is None else f"{row[name]:.2f}" for name in names)


def into_documents(result: dict[str, Any]) -> None:
    """Writes tables and plot into the documents."""
    run = result["run"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    spoilt = sum(disturbed(sample) > DISTURBED for sample in result["samples"])
    how = (
        f"Medians of up to {run['repeats']} runs of {run['seconds']:g} s each, {run['date']}; {run['cpu']}"
        f" (a virtual machine with two cores), Linux {run['kernel']}; {versions}; the voice is {run['speaker']}. Other"
        f" processes spoilt {spoilt} of {len(result['samples'])} runs; these are left out where the same was measured"
        " in peace too, and have a star where it was not: they are later and dearer"
        " than the server alone would be."
    )
    plot(result, PLOT)
    picture = f"![CPU time and round trip of the servers by number of calls]({PLOT.name})"
    document.write("calls", f"{how}\n\n{picture}\n\n{markdown(result)}")


def plot(result: dict[str, Any], path: Path) -> None:
    """CPU time a call and second, and the 99th percentile of the round trip, over the number of calls."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4), layout="constrained")
    servers = list(dict.fromkeys(row["server"] for row in result["points"]))
    of = (
        ("CPU time of the server's processes, ms a call and second", "cpu_ms"),
        ("round trip of the voice, p99, ms", "trip_p99"),
    )
    for ax, (title, name) in zip(axes, of, strict=False):
        for i, server in enumerate(servers):
            rows = [row for row in result["points"] if row["server"] == server and row["runs"]]
            rows = [row for row in rows if row["loss"] <= OVER]  # what drops most of its work may well be cheap
            known = [(row["calls"], row[name]) for row in rows if row[name] is not None]
            style = "--" if server in PASSING else "-"
            ax.plot([c for c, _ in known], [v for _, v in known], style, color=f"C{i}", marker="o", label=server)
        ax.set(xscale="log", yscale="log", xlabel="calls", title=title)
    for i, server in enumerate(servers):
        for nack, style in ((False, "-"), (True, ":")):
            rows = [r for r in result.get("quality", ()) if (r["server"], r["nack"]) == (server, nack)]
            rows = [r for r in rows if not r["jitter_ms"] and (r["asked_for"] or not nack)]
            label = f"{server}{', asks again' if nack else ''}"
            if rows:
                losses, stois = [100 * r["loss"] for r in rows], [r["stoi"] for r in rows]
                axes[2].plot(losses, stois, style, color=f"C{i}", marker="o", label=label)
    axes[2].set(xlabel="% lost on the way to the server", title="intelligibility of what comes back, STOI")
    for ax in axes:
        ax.grid(visible=True, which="both", alpha=0.3)
        if ax.get_legend_handles_labels()[0]:
            ax.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
