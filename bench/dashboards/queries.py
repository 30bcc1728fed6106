"""The queries that several dashboards have: rates and percentiles of what the chosen instances count. Pure."""

from __future__ import annotations

from bench.dashboards.grafana import Panel, lines

__all__ = ["OF", "OFF_SCHEDULE", "SCHEDULE", "rate", "times"]

OF = 'instance=~"$instance"'
_OVER = "[$__rate_interval]"


def rate(metric: str, by: str, where: str = "") -> str:
    """The rate of a counter by a label, or of all of it."""
    selected = ", ".join(filter(None, (OF, where)))
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{selected}}}{_OVER}))"


def _quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    """A percentile of a histogram, by a label or of all of it."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', ', '.join(filter(None, ('le', by))), where)})"


def times(title: str, says: str, metric: str, by: str = "", where: str = "") -> Panel:
    """The median and the 99th percentile of a duration."""
    legend = f"{{{{{by}}}}} " if by else ""
    return lines(
        title,
        "s",
        says,
        (_quantile(0.5, metric, by, where), f"{legend}p50"),
        (_quantile(0.99, metric, by, where), f"{legend}p99"),
    )


SCHEDULE = "firsthop_transceiver_schedule_total"
OFF_SCHEDULE = f"""{rate(SCHEDULE, "", 'outcome!="on_time"')} / ({rate(SCHEDULE, "")} > 0)"""
