"""All dashboards."""

from __future__ import annotations

from bench.dashboards.calls import AGENTS, JOURNEY
from bench.dashboards.edges import EDGE
from bench.dashboards.overview import OVERVIEW
from bench.dashboards.transceivers import TRANSCEIVER

__all__ = ["DASHBOARDS"]

DASHBOARDS = (OVERVIEW, EDGE, TRANSCEIVER, AGENTS, JOURNEY)
