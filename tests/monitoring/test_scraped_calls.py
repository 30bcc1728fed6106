"""A real Prometheus that scrapes the appliance under calls: processes say what the register has, and all panels and all
rules find data."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from calling import finish, start_call
from paths import ROOT, TESTS
from privileges import cannot_run
from prometheus_client.parser import text_string_to_metric_families
from waiting import until

from lab.appliance import Appliance, Place
from lab.network import Lab
from lab.prometheus import Prometheus
from runtime.families import page
from runtime.families.family import Family

pytestmark = pytest.mark.needs_root

# What no call of these brings about: other servers that agents call, and media past the workers of this host.
NOT_HERE = ("firsthop_agent_upstream_seconds", "firsthop_rx_express_late_seconds")
PROCESSES = {
    "The edge's supervisor": 9400,
    "Signaling": 9401,
    "A worker": 9402,
    "The transceivers' supervisor": 9500,
    "A transceiver": 9501,
}


@pytest.fixture(scope="module")
def house(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance with one worker and one transceiver under a supervisor, whose metrics the edge's host can read."""
    core = sorted(os.sched_getaffinity(0))[:1]
    house = Appliance(tmp_path_factory.mktemp("scraped"), lab=lab, cores=core, transceiver_cores=core)
    house.environment["transceiver"] = {"FIRSTHOP_TRANSCEIVER__METRICS": f"{lab.transceiver.address}:9500"}
    with house:
        yield house


@pytest.fixture(scope="module")
def prometheus(lab: Lab, house: Appliance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus on the edge's host, when a caller has spoken over an agent's answer and all of it was scraped."""
    if shutil.which("prometheus") is None:
        cannot_run("needs Debian's package prometheus: scripts/setup dev installs it as root")
    jobs = {
        "firsthop-edge": [f"127.0.0.1:{port}" for port in (9400, 9401, 9402)],
        "firsthop-transceiver": [f"{lab.transceiver.address}:{port}" for port in (9500, 9501)],
    }
    rules = [ROOT / "rules" / name for name in ("slo.yml", "alerts.yml")]
    with Prometheus(lab.edge, tmp_path_factory.mktemp("prometheus"), jobs, rules) as prometheus:
        until(lambda: value(prometheus, "sum(up)") == 5)
        # Ours speaks over the answer, and aiortc says by RTCP how the network is.
        argv = [sys.executable, str(TESTS / "clients/call_aiortc.py"), house.url, house.token, "stay"]
        aiortc = lab.client.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        said = finish(start_call(lab.client, house, "--model", "parrot", "--duration", "10"))
        assert said["calls"]["ok"] == 1
        until(lambda: value(prometheus, "sum(increase(firsthop_call_round_trip_seconds_count[5m]))") > 0)
        aiortc.communicate(timeout=60)
        assert aiortc.returncode == 0
        until(lambda: value(prometheus, 'sum(increase(firsthop_agent_overlaps_total{outcome="yielded"}[5m]))') > 0)
        until(lambda: all(rule["health"] != "unknown" for rule in prometheus.rules()))
        yield prometheus


def value(prometheus: Prometheus, expr: str) -> float:
    found = prometheus.query(expr)
    return float(found[0]["value"][1]) if found else 0.0


def place_of(title: str, lab: Lab) -> Place:
    return lab.transceiver if "transceiver" in title.lower() else lab.edge


def scraped(title: str, lab: Lab) -> str:
    host = lab.transceiver.address if "transceiver" in title.lower() else "127.0.0.1"

    def fetch() -> str:
        with urllib.request.urlopen(f"http://{host}:{PROCESSES[title]}/metrics", timeout=60) as response:
            text: str = response.read().decode()
            return text

    return place_of(title, lab).inside(fetch)


@pytest.mark.parametrize("title", PROCESSES)
def test_a_process_has_the_families_that_the_register_says(lab: Lab, prometheus: Prometheus, title: str) -> None:
    said = {family.name: family for family in text_string_to_metric_families(scraped(title, lab))}
    ours = {family.name: family for family in page.PROCESSES[title][1]}
    assert {name for name in said if not name.endswith("_left_out")} <= ours.keys()
    assert {name for name, family in ours.items() if not family.when or "XDP is loaded" in family.when} <= said.keys()
    for name, family in ours.items():
        if name in said:
            assert said[name].type == family.kind
            assert said[name].documentation == family.means
            for sample in said[name].samples:
                check_labels(family, sample.labels)


def check_labels(family: Family, labels: dict[str, str]) -> None:
    found = {name: value for name, value in labels.items() if name != "le"}
    assert found.keys() == family.labels.keys()
    for name, values in family.labels.items():
        assert isinstance(values, str) or found[name] in values, (family.name, found)


@pytest.mark.parametrize("title", PROCESSES)
def test_promtool_has_nothing_to_say_about_a_process(lab: Lab, prometheus: Prometheus, title: str) -> None:
    program = shutil.which("promtool")
    assert program
    done = subprocess.run([program, "check", "metrics"], input=scraped(title, lab), capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def panels() -> list[tuple[str, str]]:
    found = []
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expr = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
                found.append((f"{path.stem}: {panel['title']}", expr))
    return found


def drawn(series: list[dict[str, Any]]) -> bool:
    return any(each["value"][1] != "NaN" for each in series)


def test_every_panel_finds_data(prometheus: Prometheus) -> None:
    empty = [
        (title, expr)
        for title, expr in panels()
        if not any(name in expr for name in NOT_HERE) and not drawn(prometheus.query(expr))
    ]
    assert not empty
    assert len(panels()) > 80


def test_panels_of_what_no_call_brings_about_run_too(prometheus: Prometheus) -> None:
    for _, expr in panels():
        if any(name in expr for name in NOT_HERE):
            prometheus.query(expr)


def test_every_rule_is_evaluated_and_every_record_has_a_value(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    assert {rule["health"] for rule in rules} == {"ok"}, [rule.get("lastError") for rule in rules]
    records = [rule["name"] for rule in rules if rule["type"] == "recording"]
    assert len(records) > 10
    for record in records:
        until(lambda record=record: drawn(prometheus.query(record)))


def test_no_alert_of_the_house_fires_while_all_is_well(prometheus: Prometheus) -> None:
    """But for those about the machine's load and the network, which others have a share in."""
    about_load = re.compile("Frames|Setup|Signaling|CoreOverloaded|Room|Xdp")
    firing = [rule["name"] for rule in prometheus.rules() if rule["type"] == "alerting" and rule["state"] == "firing"]
    assert not [name for name in firing if not about_load.search(name)]
