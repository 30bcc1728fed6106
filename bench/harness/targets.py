"""Targets: what firsthop is judged by, each with its figure and a verdict."""

from __future__ import annotations

from typing import Any

__all__ = ["Targets", "table"]


class Targets:
    """Collects ``rows``, in the order in which they are judged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def judge(self, name: str, figure: float | None, limit: float, *, at_least: bool = False, note: str = "") -> None:
        """One more, unless it was not measured (None)."""
        if figure is None:
            return
        passed = figure >= limit if at_least else figure <= limit
        wanted = f"at {'least' if at_least else 'most'} {limit:g}"
        figure = float(f"{figure:.4g}")
        self.rows.append({"target": name, "wanted": wanted, "figure": figure, "pass": passed, "note": note})


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown, with an empty one at the end; none where nothing was judged."""
    if not rows:
        return []
    lines = ["| target | wanted | measured | |", "|---|---|---|---|"]
    for row in rows:
        verdict = ", ".join(filter(None, ("pass" if row["pass"] else "**fail**", row.get("note", ""))))
        lines.append(f"| {row['target']} | {row['wanted']} | {row['figure']:g} | {verdict} |")
    return [*lines, ""]
