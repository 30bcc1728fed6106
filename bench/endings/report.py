"""The table and the picture of ends of turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.harness.targets import Targets, table

__all__ = ["SHOWN", "markdown", "plot", "same_cut_ms"]

SHOWN = ("server_vad 500 ms", "server_vad 700 ms", "semantic_vad high", "semantic_vad medium", "semantic_vad low")
_SAVED = 30.0
Row = dict[str, Any]


def same_cut_ms(rows: list[Row], share: float, kind: str) -> float | None:
    """The mean dead time of the ways whose names begin with ``kind`` where they cut off that share of callers, between
    two of them; None where all cut off more, or fewer."""
    best: dict[float, float] = {}
    for row in rows:
        if row["detector"].startswith(kind):
            best[row["cut_share"]] = min(row["mean_ms"], best.get(row["cut_share"], row["mean_ms"]))
    shares = sorted(best)
    if not shares or not shares[0] <= share <= shares[-1]:
        return None
    return float(np.interp(share, shares, [best[at] for at in shares]))


def markdown(result: dict[str, Any], picture: str) -> str:
    """The part of the document."""
    clean = [row for row in result["rows"] if (row["noise"], row["vad"]) == ("clean", "webrtc")]
    at = {row["detector"]: row for row in clean}
    targets = Targets()
    silence = at["server_vad 500 ms"]
    for name in SHOWN:
        if name.startswith("semantic_vad"):
            same = same_cut_ms(clean, at[name]["cut_share"], "server_vad")
            if same is not None:
                saved = 100 * (1 - at[name]["mean_ms"] / same)
                targets.judge(
                    f"{name}: less dead time than silence that cuts off as many, %", saved, _SAVED, at_least=True
                )
    eager = [row for row in clean if " at " in row["detector"] and row["cut_share"] <= silence["cut_share"]]
    if eager:
        least = min(eager, key=lambda row: row["mean_ms"])
        saved = 100 * (1 - least["mean_ms"] / silence["mean_ms"])
        name = "the most that any certainty saves over 500 ms of silence, where no more are cut off, %"
        targets.judge(name, saved, _SAVED, at_least=True)
    lines = [
        f"{result['date']}; answers of Smart Turn come after {result['answer_ms']} ms.",
        "",
        f"![Callers cut off over dead time, by silence and by Smart Turn]({picture})",
        "",
        *table(targets.rows),
        "| noise | voice by | turn detection | cut off in a pause | dead time mean / p50 / p90 ms | asked a turn |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        if row["detector"] in SHOWN:
            dead = f"{row['mean_ms']:.0f} / {row['p50_ms']:.0f} / {row['p90_ms']:.0f}"
            cells = (row["noise"], row["vad"], row["detector"], f"{100 * row['cut_share']:.0f} %", dead)
            asked = f"{row['asked']:.1f}" if row["asked"] else ""
            lines.append(f"| {' | '.join(cells)} | {asked} |")
    return "\n".join([*lines, ""])


def plot(result: dict[str, Any], path: Path) -> None:
    """The share of callers who are cut off over the dead time: by silence, by each eagerness with other certainties,
    and as each is set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in result["rows"] if (row["noise"], row["vad"]) == ("clean", "webrtc")]
    figure, ax = pyplot.subplots(figsize=(8, 5), layout="constrained")
    curves = {"server_vad": "server_vad, by its silence"}
    curves |= {f"{name} at": f"semantic_vad {name}, by its certainty" for name in ("high", "medium", "low")}
    for i, (kind, label) in enumerate(curves.items()):
        points = [(row["mean_ms"], 100 * row["cut_share"]) for row in rows if row["detector"].startswith(kind)]
        ax.plot(*zip(*points, strict=True), "-", color=f"C{i}", marker=".", label=label)
    for row in rows:
        if row["detector"] in SHOWN:
            ax.plot(row["mean_ms"], 100 * row["cut_share"], "ko")
            ax.annotate(row["detector"], (row["mean_ms"], 100 * row["cut_share"]), (6, 6), textcoords="offset points")
    ax.set(xlabel="dead time after the end of a turn, mean, ms", ylabel="% of pauses in which callers are cut off")
    ax.grid(visible=True, alpha=0.3)
    ax.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
