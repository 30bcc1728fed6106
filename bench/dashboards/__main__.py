"""Writes the dashboards into ``dashboards/``, where Grafana takes them from."""

from __future__ import annotations

import json
from pathlib import Path

from bench.dashboards.boards import DASHBOARDS

_FOLDER = Path(__file__).parents[2] / "dashboards"


def main() -> None:
    for dashboard in DASHBOARDS:
        (_FOLDER / f"{dashboard.uid}.json").write_text(json.dumps(dashboard.json(), indent=1) + "\n")


if __name__ == "__main__":
    main()
