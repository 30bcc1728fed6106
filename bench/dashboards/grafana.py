"""The part of Grafana's JSON that the dashboards need: panels on a grid, each with queries of Prometheus. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Dashboard", "Kind", "Panel", "Query", "bars", "lines", "number"]

Kind = Literal["timeseries", "stat", "bargauge"]
Unit = Literal["s", "percentunit", "short", "bytes", "pps", "cps", "bool"]

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24
_SIZES: dict[Kind, tuple[int, int]] = {"timeseries": (8, 8), "stat": (4, 4), "bargauge": (12, 9)}


@dataclass(frozen=True, slots=True)
class Query:
    """A query, and how its series are called; ``{{label}}`` stands for a label's value."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel. ``says`` is what a person reads who wonders what it shows."""

    title: str
    kind: Kind
    unit: Unit
    says: str
    queries: tuple[Query, ...]

    def json(self, number: int, x: int, y: int) -> dict[str, Any]:
        """The panel at that place of the grid."""
        width, height = _SIZES[self.kind]
        once = self.kind != "timeseries"
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.says,
            "datasource": _SOURCE,
            "gridPos": {"x": x, "y": y, "w": width, "h": height},
            "fieldConfig": {"defaults": {"unit": self.unit, "min": 0}, "overrides": []},
            "options": self._options(),
            "targets": [
                {
                    "refId": chr(ord("A") + i),
                    "datasource": _SOURCE,
                    "expr": query.expr,
                    "legendFormat": query.legend or "__auto",
                    "instant": once,
                    "range": not once,
                }
                for i, query in enumerate(self.queries)
            ],
        }

    def _options(self) -> dict[str, Any]:
        last = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        if self.kind == "timeseries":
            return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
        return {**last, "orientation": "horizontal"} if self.kind == "bargauge" else last


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard. ``uid`` stays, so that links to it and what is provisioned again stay true."""

    uid: str
    title: str
    says: str
    panels: tuple[Panel, ...]

    def json(self) -> dict[str, Any]:
        """What Grafana imports, as of its schema 39 (Grafana 11); older ones take it too."""
        x = y = tallest = 0
        panels = []
        for number, panel in enumerate(self.panels, 1):
            width, height = _SIZES[panel.kind]
            if x + width > _COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            panels.append(panel.json(number, x, y))
            x, tallest = x + width, max(tallest, height)
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.says,
            "tags": ["firsthop"],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "",
            "templating": {"list": [_datasource(), _instance()]},
            "annotations": {"list": []},
            "links": [
                {"type": "dashboards", "title": "firsthop", "tags": ["firsthop"], "asDropdown": True, "keepTime": True}
            ],
            "panels": panels,
        }


def lines(title: str, unit: Unit, says: str, *queries: tuple[str, str]) -> Panel:
    """A panel with a line for each series."""
    return Panel(title, "timeseries", unit, says, tuple(Query(*query) for query in queries))


def number(title: str, unit: Unit, says: str, expr: str) -> Panel:
    """A panel with one figure of now."""
    return Panel(title, "stat", unit, says, (Query(expr),))


def bars(title: str, unit: Unit, says: str, *queries: tuple[str, str]) -> Panel:
    """A panel with a bar for each series, of now."""
    return Panel(title, "bargauge", unit, says, tuple(Query(*query) for query in queries))


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}


def _instance() -> dict[str, Any]:
    return {
        "name": "instance",
        "label": "Instance",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(firsthop_process_id, instance)", "refId": "instance"},
        "definition": "label_values(firsthop_process_id, instance)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
