"""The report of what was let in: tables, and the targets with a pass or a fail."""

from __future__ import annotations

from typing import Any

from bench.harness import document
from bench.harness.targets import Targets, table

__all__ = ["disturbed", "into_documents", "keeps", "line", "markdown", "medians", "targets"]

KEPT = 0.999
WITHIN = 0.15
REFUSED_MS = 250.0
STEADY = 1.2
Sample = dict[str, Any]


def keeps(sample: Sample) -> bool:
    """Whether nearly all frames came on schedule."""
    return "failed" not in sample and bool(sample["kept"] >= KEPT)


def disturbed(sample: Sample) -> float:
    """How much slower than it is now and then anyway the server's core became for a fifth of a second: a machine that
    is shared with strangers takes from every server what none can make up for."""
    return max(0.0, float(sample.get("slowest", 1.0)) - STEADY)


def line(sample: Sample) -> str:
    """One run as a line, for whoever watches."""
    name = f"{sample['agent']:9} {_limit(sample):9} {sample['callers']:4} callers"
    if "failed" in sample:
        return f"{name}: failed: {sample['failed']}"
    refused = ", ".join(f"{count} {why}" for why, count in sample["refused"].items())
    return (
        f"{name}: {sample['calls']:.1f} calls, {100 * sample['kept']:.3f} % kept ({sample['late']} late, "
        f"{sample['lost']} lost of {sample['due']}), refused {refused or 'none'}, load {sample['load_share']:.2f}, "
        f"others {100 * sample['others']:.0f} %, slowest {sample['slowest']:.2f}"
    )


def _limit(sample: Sample) -> str:
    return "measured" if sample["fixed"] is None else f"fixed {sample['fixed']}"


def medians(samples: list[Sample]) -> list[Sample]:
    """One row for each agent: the run that measured, the largest fixed number that kept its frames, and whether it is
    ``bounded`` by a larger one that did not."""
    rows = []
    for agent in dict.fromkeys(sample["agent"] for sample in samples):
        mine = [sample for sample in samples if sample["agent"] == agent and "failed" not in sample]
        measured = next((sample for sample in mine if sample["fixed"] is None), None)
        if measured is not None:
            good = [sample for sample in mine if sample["fixed"] is not None and keeps(sample)]
            best = max(good, key=lambda sample: float(sample["calls"]), default=None)
            most = max((sample["fixed"] for sample in mine if sample["fixed"] is not None), default=0)
            bounded = best is not None and best["fixed"] < most
            rows.append({"agent": agent, "measured": measured, "best": best, "bounded": bounded})
    return rows


def targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Each agent: what was let in is near the best number, its frames are kept, the rest is refused at once."""
    judged = Targets()
    for row in result["points"]:
        agent, measured, best = row["agent"], row["measured"], row["best"]
        note = f"the core took {measured['slowest']:.1f} times as long for a while" if disturbed(measured) else ""
        if best is not None:
            share = abs(measured["calls"] / best["calls"] - 1)
            more = "" if row["bounded"] else "a larger one was not tried"
            notes = ", ".join(filter(None, (note, more)))
            judged.judge(f"{agent}: calls let in, off the best fixed number", share, WITHIN, note=notes)
        judged.judge(f"{agent}: frames kept of the calls let in", measured["kept"], KEPT, at_least=True, note=note)
        judged.judge(f"{agent}: refused within, p99, ms", measured["refused_ms"]["p99"], REFUSED_MS, note=note)
        other = sum(count for why, count in measured["refused"].items() if why != "HTTP 503")
        judged.judge(f"{agent}: callers turned away by anything but 503", other, 0, note=note)
    return judged.rows


def markdown(result: dict[str, Any]) -> str:
    """Targets and figures as tables."""
    run = result["run"]
    lines = [
        f"{run['offered']} times as many callers as are served, one in five with short calls; "
        f"{run['seconds']:.0f} s a run; {run['cpu']}, Linux {run['kernel']}, {run['date']}.",
        "",
        *table(result["targets"]),
        "| agent | limit | callers | calls | frames kept | late | lost | refused, p50 / p99 ms | core, slowest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for sample in result["samples"]:
        if "failed" in sample:
            lines.append(f"| {sample['agent']} | {_limit(sample)} | {sample['callers']} | failed | | | | | |")
            continue
        waits = sample["refused_ms"]
        waited = "" if waits["p50"] is None else f"{waits['p50']:.0f} / {waits['p99']:.0f}"
        lines.append(
            f"| {sample['agent']} | {_limit(sample)} | {sample['callers']} | {sample['calls']:.0f} "
            f"| {100 * sample['kept']:.2f} % | {sample['late']} | {sample['lost']} | {waited} "
            f"| {sample['slowest']:.2f} |"
        )
    return "\n".join([*lines, ""])


def into_documents(result: dict[str, Any]) -> None:
    """Writes the tables into the document."""
    document.write("capacity", markdown(result))
