"""The table and the picture of ends of turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.harness.targets import Targets, table

__all__ = ["least_ms", "markdown", "plot"]

SAVED = 30.0
SHOWN = ("server_vad 500 ms", "server_vad 700 ms", "semantic_vad high", "semantic_vad medium", "semantic_vad low")
Row = dict[str, Any]


def least_ms(rows: list[Row], share: float, kind: str) -> float | None:
    """The dead time at which a curve (``kind`` begins the names of its points) cuts off that share of callers, from
    its points on both sides; None where it cuts off fewer or more."""
    points = sorted((row["cut_share"], row["mean_ms"]) for row in rows if row["detector"].startswith(kind))
    shares = [point[0] for point in points]
    if not points or not shares[0] <= share <= shares[-1]:
        return None
    best: dict[float, float] = {}
    for at, ms in points:
        best[at] = min(ms, best.get(at, ms))
    return float(np.interp(share, list(best), list(best.values())))


def markdown(result: dict[str, Any], picture: str) -> str:
    """The part of the document."""
    targets = Targets()
    clean = [row for row in result["rows"] if (row["noise"], row["vad"]) == ("clean", "webrtc")]
    at = {row["detector"]: row for row in clean}
    silence = at["server_vad 500 ms"]
    fits = [row for row in clean if row["cut_share"] <= silence["cut_share"]]
    eager = min((row["mean_ms"] for row in fits if row["detector"].startswith("sem")), default=None)
    if eager is not None:
        saved = 100 * (1 - eager / silence["mean_ms"])
        targets.judge("less dead time, no more cut off than by 500 ms, %", saved, SAVED, at_least=True)
    for name in ("semantic_vad medium",):
        same = least_ms(clean, at[name]["cut_share"], "server_vad")
        if same is not None:
            saved = 100 * (1 - at[name]["mean_ms"] / same)
            targets.judge(f"less dead time, as many cut off as by {name}, %", saved, SAVED, at_least=True)
    lines = [
        f"{result['date']}; answers of Smart Turn come after {result['answer_ms']} ms.",
        "",
        f"![Callers cut off over dead time, by silence and by Smart Turn]({picture})",
        "",
        *table(targets.rows),
        "| noise | voice by | turn detection | pauses cut off | dead time mean / p50 / p90 ms | asked a turn |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        if row["detector"] in SHOWN:
            dead = f"{row['mean_ms']:.0f} / {row['p50_ms']:.0f} / {row['p90_ms']:.0f}"
            cells = (row["noise"], row["vad"], row["detector"], f"{100 * row['cut_share']:.0f} %", dead)
            lines.append(f"| {' | '.join(cells)} | {row['asked']:.1f} |")
    return "\n".join([*lines, ""])


def plot(result: dict[str, Any], path: Path) -> None:
    """The share of callers who are cut off over the dead time, a panel for each noise."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    noises = list(dict.fromkeys(row["noise"] for row in result["rows"]))
    figure, axes = pyplot.subplots(1, len(noises), figsize=(4 * len(noises), 4), layout="constrained", sharey=True)
    for ax, noise in zip(np.atleast_1d(axes), noises, strict=True):
        for i, vad in enumerate(dict.fromkeys(row["vad"] for row in result["rows"])):
            rows = [row for row in result["rows"] if (row["noise"], row["vad"]) == (noise, vad)]
            for kind, style in (("server_vad", "--"), ("sure", "-"), ("semantic_vad", "o")):
                points = [(r["mean_ms"], 100 * r["cut_share"]) for r in rows if r["detector"].startswith(kind)]
                label = f"{kind}, {vad}" if kind != "sure" else f"by how sure, {vad}"
                ax.plot(*zip(*points, strict=True), style, color=f"C{i}", label=label)
        ax.set(xlabel="dead time, mean, ms", title=noise, xlim=(0, 2000))
        ax.grid(visible=True, alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("% of pauses cut off")
    np.atleast_1d(axes)[0].legend()
    figure.savefig(path, dpi=90, metadata={"Software": None})
    pyplot.close(figure)
