"""The rules for Prometheus: well-formed, tested, each with a page that says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from paths import ROOT
from privileges import cannot_run

from runtime.families import page

RULES = ROOT / "rules"
ALERTS = re.findall(r"^      - alert: (\w+)$", (RULES / "alerts.yml").read_text(), re.MULTILINE)
NAMES = {family.name for _, families in page.PROCESSES.values() for family in families}


def promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        cannot_run("needs promtool, of Debian's package prometheus: scripts/setup dev installs it as root")
    done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_well_formed() -> None:
    promtool("check", "rules", "rules/slo.yml", "rules/alerts.yml")


def test_alerts_fire_when_they_should_and_not_else() -> None:
    promtool("test", "rules", "rules/tests.yml")


def test_each_alert_is_tested() -> None:
    tested = set(re.findall(r"alertname=\"(\w+)\"", (RULES / "tests.yml").read_text()))
    assert set(ALERTS) == tested


def test_each_alert_has_its_part_of_the_runbook_and_each_part_an_alert() -> None:
    parts = re.findall(r"^## (Firsthop\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert sorted(parts) == sorted(ALERTS)
    links = re.findall(r"runbook_url: docs/runbook\.md#(\w+)$", (RULES / "alerts.yml").read_text(), re.MULTILINE)
    assert links == [alert.lower() for alert in ALERTS]


def test_each_part_of_the_runbook_says_what_callers_hear_how_to_confirm_and_what_to_do() -> None:
    parts = re.split(r"^## ", (ROOT / "docs/runbook.md").read_text(), flags=re.MULTILINE)
    for part in parts:
        if part.startswith("Firsthop"):
            assert re.search(r"\*\*Callers hear\*\*.*\*\*Confirm\*\*:.*\*\*Do\*\*:", part, re.DOTALL), part[:40]


@pytest.mark.parametrize("file", ["slo.yml", "alerts.yml"])
def test_rules_are_about_metrics_that_there_are(file: str) -> None:
    used = set(re.findall(r"(?<![\w:])firsthop_[a-z_]+", (RULES / file).read_text()))
    assert used
    assert {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in used} <= NAMES
