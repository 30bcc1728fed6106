"""The documents say what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from click.testing import CliRunner

from bpf.verdicts import markdown_table
from firsthop.cli import main

HOUSE = Path(__file__).parent.parent


def test_readme_has_the_table_of_configuration_keys() -> None:
    table = CliRunner().invoke(main, ["config", "--markdown"], catch_exceptions=False).output
    assert table in (HOUSE / "README.md").read_text()


def test_architecture_has_the_table_of_verdicts() -> None:
    assert markdown_table() in (HOUSE / "docs" / "architecture.md").read_text()


def test_files_that_the_readme_names_exist() -> None:
    text = (HOUSE / "README.md").read_text()
    named = [part for part in text.split("`")[1::2] if "/" in part and part.endswith((".py", ".c", ".service"))]
    assert len(named) > 20
    assert not [name for name in named if not (HOUSE / name).exists()]


def test_readme_has_the_versions_of_the_clients_that_tests_run() -> None:
    readme = (HOUSE / "README.md").read_text()
    lock = (HOUSE / "requirements/dev.txt").read_text()
    pinned = dict(re.findall(r"^([a-z-]+)(?:\[.*\])?==(\S+)", lock, re.MULTILINE))
    package = json.loads((HOUSE / "tests/clients/package.json").read_text())
    for client, version in package["dependencies"].items():
        assert re.search(rf"\| `{client}` \(npm\)(, in Chromium)? \| {re.escape(version)} \|", readme), client
    for client in ("openai-agents", "openai"):
        assert f"| `{client}` (PyPI) | {pinned[client]} |" in readme
    base = (HOUSE / "requirements/base.txt").read_text()
    aiortc = re.findall(r"^aiortc==(\S+)", base + (HOUSE / "tests/clients/aiortc-1.13.txt").read_text(), re.MULTILINE)
    assert f"| `aiortc` (PyPI) | {', '.join(aiortc)} |" in readme
