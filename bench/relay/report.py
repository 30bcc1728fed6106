"""The report of the samples: medians, tables, a plot, and the targets with a pass or a fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.harness import document
from bench.harness.repeats import calm, compared, median, rounded
from bench.harness.targets import Targets, table
from bench.harness.undisturbed import DISTURBED

__all__ = ["SHARES", "into_documents", "line", "markdown", "medians", "targets"]

Sample = dict[str, Any]
# Of its own saturation, each relay is also measured at these.
BELOW, BEYOND = 0.7, 1.5
SHARES = (BELOW, BEYOND)

PLOT = document.DOCUMENT.with_name("relay.png")
PEERS = ("nginx", "coturn", "floor")
# What no process relays has no cost of its own: what it costs the machine is all.
NO_RELAY = ("direct", "routed", "express", "between")


def figures(sample: Sample) -> dict[str, float]:
    """The figures of one sample: rates a second, the share lost, microseconds of CPU time a datagram, latencies."""
    load, cpu = sample["load"], sample["cpu"]
    # A datagram counts when it has come through: up at the backend, and once more down at the client.
    relayed = max(1, load["arrived"] + load["received"]) / load["seconds"]
    return {
        "offered": load["sent"] / load["seconds"],
        "achieved": load["received"] / load["seconds"],
        "lost": load["lost"],
        "loss": load["lost"] / load["sent"],
        "duplicates": load["duplicates"],
        "checked": load.get("checked", 0),
        "wrong": load.get("wrong", 0),
        "relay_us": 1e6 * cpu["relay"] / cpu["wall"] / relayed,
        "machine_us": 1e6 * cpu["machine"] / cpu["wall"] / relayed,
        "load_core": cpu["load_core"] / cpu["wall"],
        "others": cpu["others"] / cpu["wall"],
        **{f"{way}_{q}_ms": load[f"{way}_us"][q] / 1e3 for way in ("up", "down") for q in ("p50", "p99", "p99.9")},
    }


def line(sample: Sample) -> str:
    """One sample, for whoever watches."""
    f = figures(sample)
    late = f"up {f['up_p50_ms']:.2f}/{f['up_p99_ms']:.2f} ms, down {f['down_p50_ms']:.2f}/{f['down_p99_ms']:.2f} ms"
    others = f", others {100 * f['others']:.0f} %" if f["others"] >= 0.01 else ""
    return f"{f['achieved']:,.0f}/s back, {f['lost']:,.0f} lost, {f['relay_us']:.2f} us, {late}{others}"


def medians(samples: list[Sample]) -> list[dict[str, Any]]:
    """One row for each relay and point: the median of each figure, and of its ratio to others in the same repeat.
    Samples that others disturbed are left out where there is another."""
    keys = {(s["relay"], s["rate"], s["flows"], s["share"]): None for s in samples}
    rows = []
    for relay, rate, flows, share in keys:
        mine = _by_repeat(samples, relay, rate, flows, share)
        kept = calm(mine, mine)
        all_ = [mine[i] for i in kept]
        row: dict[str, Any] = {"relay": relay, "rate": rate, "flows": flows, "share": share, "runs": len(kept)}
        row |= {name: median(f[name] for f in all_) for name in all_[0]}
        row["most_lost"] = max(f["lost"] for f in all_)
        row["most_wrong"] = max(f["wrong"] for f in all_)
        row["least_achieved"] = rounded(min(f["achieved"] for f in all_))
        for peer in PEERS:
            theirs = _by_repeat(samples, peer, rate, flows, share)
            row[f"of_{peer}"] = compared(mine, theirs, lambda a, b: a["relay_us"] / b["relay_us"])
        direct = _by_repeat(samples, "direct", rate, flows, share)
        # Where much is lost, the load's own part is shared by fewer, and the difference says nothing.
        clean = max(f["loss"] for f in all_) < 0.01
        for other in ("direct", "routed"):
            theirs = _by_repeat(samples, other, rate, flows, share)
            row[f"machine_over_{other}_us"] = (
                compared(mine, theirs, lambda a, b: a["machine_us"] - b["machine_us"]) if clean else None
            )
        for q in ("p50", "p99", "p99.9"):
            row[f"added_{q}_ms"] = compared(mine, direct, partial(_added, q))
        rows.append(row)
    return rows


def _by_repeat(
    samples: Iterable[Sample], relay: str, rate: int, flows: int, share: float | None
) -> dict[int, dict[str, float]]:
    want = (relay, rate, flows, share)
    return {s["repeat"]: figures(s) for s in samples if (s["relay"], s["rate"], s["flows"], s["share"]) == want}


def _added(quantile: str, relay: Mapping[str, Any], direct: Mapping[str, Any]) -> float:
    """The milliseconds that the relay adds one way, whichever is the slower."""
    return max(float(relay[f"{way}_{quantile}_ms"] - direct[f"{way}_{quantile}_ms"]) for way in ("up", "down"))


def targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The targets of firsthop, each with its figure; those that were not measured are left out."""
    rows = result["points"]
    judged = Targets()
    judge = judged.judge

    at = {(row["rate"], row["share"]): row for row in reversed(rows) if row["relay"] == "firsthop"}
    for rate, peer, limit in (
        (20_000, "nginx", 1 / 2),
        (50_000, "nginx", 1 / 3),
        (50_000, "coturn", 1.0),
        (200_000, "coturn", 2 / 3),
        (200_000, "floor", 2.5),
    ):
        row = at.get((rate, None), {})
        name = f"CPU a datagram at {rate // 1000} kpps, of {peer}'s"
        # What drops most of its work may well be cheap.
        lost = row.get("loss", 0.0)
        note = f"but {100 * lost:.0f} % was lost" if lost >= 0.01 else ""
        judge(name, row.get(f"of_{peer}"), round(limit, 2), note=note)
    row = at.get((20_000, None), {})
    judge("added one way at 20 kpps, p99, ms", row.get("added_p99_ms"), 1.0)
    judge("added one way at 20 kpps, p99.9, ms", row.get("added_p99.9_ms"), 3.0)
    _judge_express(rows, judge)
    if best := result.get("saturation", {}).get("firsthop"):
        # The worst run, not the median: a relay that loses nothing does so each time.
        peak = best["achieved"]
        below = [row["most_lost"] for (rate, _), row in at.items() if rate <= round(BELOW * peak)]
        judge("lost at up to 70 % of saturation, worst run", max(below, default=None), 0)
        beyond = [row["least_achieved"] / peak for (rate, _), row in at.items() if rate >= round(BEYOND * peak)]
        worst = rounded(min(beyond)) if beyond else None
        judge("throughput beyond saturation, of the peak, worst run", worst, 0.9, at_least=True)
    if memory := result.get("memory"):
        name = f"memory of a worker with {memory['flows']:,} flows, MB"
        judge(name, round(memory["worker_rss_bytes"] / 1e6, 1), 120)
    return judged.rows


def _judge_express(rows: list[dict[str, Any]], judge: Callable[..., None]) -> None:
    """The targets of the ways past the worker: against relays that have each datagram, with their backend on the same
    host, and against the kernel alone."""
    at = {(row["relay"], row["rate"]): row for row in reversed(rows) if row["share"] is None}
    over = "machine_over_direct_us"
    for way, name, peers in (
        ("express", "past the worker", ("nginx", "coturn")),
        ("between", "to another host", ("nginx-far", "coturn-far")),
    ):
        for rate in (20_000, 50_000):
            mine = at.get((way, rate), {}).get(over)
            for peer in peers:
                theirs = at.get((peer, rate), {}).get(over)
                if mine is not None and theirs:
                    judge(f"{name}: machine over direct at {rate // 1000} kpps, of {peer}'s", mine / theirs, 0.1)
        row = at.get((way, 200_000), {})
        judge(f"{name}: machine over routing at 200 kpps, µs", row.get("machine_over_routed_us"), 0.5)
        judge(f"{name}: lost at 200 kpps, worst run", row.get("most_lost"), 0)
        wrong = max((row["most_wrong"] for row in rows if row["relay"] == way and row["checked"]), default=None)
        judge(f"{name}: wrong checksums at the client, worst run", wrong, 0)
        row = at.get((way, 20_000), {})
        judge(f"{name}: added one way at 20 kpps, p50, ms", row.get("added_p50_ms"), 0.02)
        judge(f"{name}: added one way at 20 kpps, p99, ms", row.get("added_p99_ms"), 0.1)


def markdown(result: dict[str, Any]) -> str:
    """Targets and figures as tables."""
    lines = table(result["targets"])
    lines += [
        "| datagrams/s | flows | relay | CPU µs | of nginx | of floor | machine µs | up p50 / p99 / p99.9 ms"
        " | down p50 / p99 / p99.9 ms | back/s | lost |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    usual = result["points"][0]["flows"]
    for row in sorted(result["points"], key=lambda row: (row["share"] or 0, row["flows"] != usual, row["rate"])):
        offered = f"{row['rate']:,}" if row["share"] is None else f"{row['rate']:,} ({row['share']:g} of its peak)"
        up, down = (
            " / ".join(f"{row[f'{way}_{q}_ms']:.2f}" for q in ("p50", "p99", "p99.9")) for way in ("up", "down")
        )
        lost = f"{100 * row['loss']:.1f} %" if row["loss"] >= 0.001 else f"{row['lost']:.0f}"
        us = ["relay_us", "of_nginx", "of_floor", "machine_over_direct_us"]
        if row["relay"] in NO_RELAY:
            row = row | dict.fromkeys(us[:3] if row["relay"] != "direct" else us)
        cpu = " | ".join("" if row[name] is None else f"{row[name]:.3g}" for name in us)
        back = f"{row['achieved']:,.0f}"
        lines.append(f"| {offered} | {row['flows']:,} | {row['relay']} | {cpu} | {up} | {down} | {back} | {lost} |")
    if "saturation" in result:
        lines += ["", "| relay | brings back at most, a second | limited by |", "|---|---|---|"]
        lines += [f"| {r} | {s['achieved']:,} | {s['limited_by']} |" for r, s in result["saturation"].items()]
    return "\n".join(lines)


def into_documents(result: dict[str, Any]) -> None:
    """Writes tables and plot into the documents."""
    run = result["run"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    spoilt = sum(figures(sample)["others"] > DISTURBED for sample in result["samples"])
    how = (
        f"Medians of up to {run['repeats']} runs of {run['seconds']:g} s each, {run['date']}; {run['cpu']}"
        f" (a virtual machine with two cores), Linux {run['kernel']}; {versions}. Other processes spoilt {spoilt} of"
        f" {len(result['samples'])} runs; these are left out where the same was measured in peace too."
    )
    plot(result, PLOT)
    picture = f"![CPU time and latency of the relays by rate]({PLOT.name})"
    document.write("relay", f"{how}\n\n{picture}\n\n{markdown(result)}")


def plot(result: dict[str, Any], path: Path) -> None:
    """CPU time a datagram, and the 99th percentile of the latency both ways, over the rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (cpu, latency) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    flows = result["points"][0]["flows"]
    for i, relay in enumerate(dict.fromkeys(row["relay"] for row in result["points"])):
        rows = [r for r in result["points"] if r["relay"] == relay and r["flows"] == flows and r["share"] is None]
        rates = [row["rate"] / 1000 for row in rows]
        if relay not in NO_RELAY:
            cpu.plot(rates, [row["relay_us"] for row in rows], color=f"C{i}", marker="o", label=relay)
        latency.plot(
            rates, [row["up_p99_ms"] + row["down_p99_ms"] for row in rows], color=f"C{i}", marker="o", label=relay
        )
    for axes, title in ((cpu, "CPU time of the relay's processes, µs a datagram"), (latency, "p99 up + p99 down, ms")):
        axes.set(xscale="log", yscale="log", xlabel=f"offered, thousand datagrams a second, {flows} flows", title=title)
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
