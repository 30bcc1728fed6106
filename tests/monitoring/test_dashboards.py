"""The dashboards as Grafana takes them: made by the code that is here, whole, and about metrics that there are."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
from paths import ROOT

from bench.dashboards.boards import DASHBOARDS
from runtime.families import page

FILES = sorted((ROOT / "dashboards").glob("*.json"))
NAMES = {family.name for _, families in page.PROCESSES.values() for family in families}


def read(uid: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / f"dashboards/{uid}.json").read_text())
    return found


def test_the_files_are_what_the_code_makes() -> None:
    assert [path.stem for path in FILES] == sorted(dashboard.uid for dashboard in DASHBOARDS)
    for dashboard in DASHBOARDS:
        assert read(dashboard.uid) == dashboard.json(), "make dashboards writes it"


@pytest.mark.parametrize("uid", [path.stem for path in FILES])
def test_a_dashboard_is_whole(uid: str) -> None:
    board = read(uid)
    assert board["uid"] == uid
    datasource, instance = board["templating"]["list"]
    assert (datasource["type"], datasource["query"]) == ("datasource", "prometheus")
    assert instance["datasource"]["uid"] == "${datasource}"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 9
    for panel in panels:
        assert panel["description"].endswith(".")
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert set(re.findall(r"\$\w+", target["expr"])) <= {"$instance", "$__rate_interval"}
    for a, b in combinations((panel["gridPos"] for panel in panels), 2):
        assert (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )


@pytest.mark.parametrize("uid", [path.stem for path in FILES])
def test_panels_are_about_metrics_that_there_are(uid: str) -> None:
    for panel in read(uid)["panels"]:
        for target in panel["targets"]:
            used = set(re.findall(r"\bfirsthop_[a-z_]+", target["expr"]))
            assert {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in used} <= NAMES, target["expr"]
