"""The reference of all metrics as Markdown, made from the register."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.families import edge, transceiver
from runtime.families.family import Family
from runtime.families.shared import EVERY, UFRAG_KEY

__all__ = ["PROCESSES", "markdown"]

PROCESSES: dict[str, tuple[str, tuple[Family, ...]]] = {
    "Every process": ("", (*EVERY, UFRAG_KEY)),
    "The edge's supervisor": ("It answers at `edge.metrics`.", edge.SUPERVISOR),
    "Signaling": ("It answers one port above `edge.metrics`.", edge.SIGNALING),
    "A worker": ("Worker 0 answers two ports above `edge.metrics`, and each further one a port above.", edge.WORKER),
    "The transceivers' supervisor": (
        "With `transceiver.cores` or `transceiver.supervised` it answers at `transceiver.metrics`.",
        transceiver.SUPERVISOR,
    ),
    "A transceiver": (
        "It answers at `transceiver.metrics`; with a supervisor the first one is a port above it, and so on.",
        transceiver.TRANSCEIVER,
    ),
}
"""Each kind of process: where it answers, and its families."""

_HEAD = """# Metrics

<!-- made by make docs -->
Every process serves these families for Prometheus under `/metrics`. Names follow its conventions: seconds, bytes and
ratios, `_total` for what only grows. No label has a call's id, an address or anything else that a caller chooses, so
the number of series is bounded by the numbers of cores, transceivers, edges and agents. Where a label's values are
listed here, most counters are there, at 0, before anything happens.

A histogram `X` has `X_bucket`, `X_sum` and `X_count`. Those with buckets of half an octave, from 8.2 us to 1.1 s, come
with a counter `_left_out_total`: what a clock that was set, or a lie, made of a duration.

[runbook.md](runbook.md) has the alerts that are made of these families."""


def markdown() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    everybodys = PROCESSES["Every process"][1]
    for title, (where, families) in PROCESSES.items():
        yield f"\n## {title}\n"
        if where:
            yield f"{where}\n"
        yield "| metric | type | labels | meaning |"
        yield "|---|---|---|---|"
        for family in families:
            if title == "Every process" or family not in everybodys:
                yield _row(family)
    yield "\nThe transceivers' supervisor alone has no `firsthop_ufrag_key`: it opens no ufrag."


def _row(family: Family) -> str:
    labels = "<br>".join(f"`{name}`: {_values(values)}" for name, values in family.labels.items())
    when = f"; there while {family.when}" if family.when else ""
    return f"| `{family.exposed}` | {family.kind} | {labels} | {family.means}{when} |"


def _values(values: tuple[str, ...] | str) -> str:
    return values if isinstance(values, str) else ", ".join(f"`{value}`" for value in values)
