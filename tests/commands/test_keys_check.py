"""``firsthop keys check``: whether the processes of a host hold the keys of its file, and what is due next."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from firsthop import rotate
from firsthop.cli import main
from firsthop.status import Scrape
from firsthop.status_cli import Host
from wire.keys import new_file_text
from wire.rotation import KeyRing


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key file, and a host where nothing of firsthop runs."""
    running(monkeypatch)
    path = tmp_path / "cluster.toml"
    path.write_text(new_file_text())
    path.chmod(0o600)
    (tmp_path / "firsthop.toml").write_text(f'[cluster]\nkeys = "{path}"\n')
    return path


def running(monkeypatch: pytest.MonkeyPatch, **processes: dict[tuple[str, ...], float]) -> None:
    """Processes with these samples are what answers."""
    found = {name: Scrape(0.0, samples) for name, samples in processes.items()}
    monkeypatch.setattr(Host, "look", lambda self: (found, {}))
    monkeypatch.setattr(rotate, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(rotate, "_LOOK_EVERY_S", 0.01)


def holds(sealing: int, *accepted: int, **calls: int) -> dict[tuple[str, ...], float]:
    samples: dict[tuple[str, ...], float] = {("firsthop_ufrag_key", str(sealing), "sealing"): 1.0}
    samples |= {("firsthop_ufrag_key", str(key), "accepted"): 1.0 for key in accepted}
    return samples | {("firsthop_transceiver_key_sessions", key[1:]): float(count) for key, count in calls.items()}


def check(file: Path, code: int) -> dict[str, Any]:
    argv = ["keys", "check", "--json", "--config", str(file.parent / "firsthop.toml")]
    result = CliRunner().invoke(main, argv, catch_exceptions=False)
    assert result.exit_code == code, result.output
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def test_what_is_due_and_what_it_drops_follows_from_the_file(file: Path) -> None:
    ring = KeyRing.parse(file.read_text(), file)
    steps = []
    for _ in range(2):
        ring = ring.prepare(datetime.now(UTC), bytes(16))
        file.write_text(ring.text())
        steps.append(check(file, 0))
        ring = ring.promote()
        file.write_text(ring.text())
        steps.append(check(file, 0))
    assert [(step["due"], step["drops"]) for step in steps] == [
        ("promote", []),
        ("prepare", [1]),
        ("promote", []),
        ("prepare", [2]),
    ]
    assert file.read_text() == ring.text()


def test_calls_are_counted_over_the_processes_by_key(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, edge=holds(1), t1=holds(1, _1=3, _2=1), t2=holds(1, _1=4))
    said = check(file, 0)
    assert said["calls"] == {"1": 7, "2": 1}
    assert said["asked"] == ["edge", "t1", "t2"]


def test_a_process_with_other_keys_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, edge=holds(1), worker=holds(2, 1))
    assert check(file, 1)["behind"] == "worker"


def test_people_are_told_in_lines_and_shown_no_key(file: Path) -> None:
    argv = ["keys", "check", "--config", str(file.parent / "firsthop.toml")]
    result = CliRunner().invoke(main, argv, catch_exceptions=False)
    assert result.stdout.splitlines() == [
        f"{file}: key 1 seals",
        "nothing of firsthop answers on this host",
        "next: prepare",
    ]


def test_a_file_that_is_not_there_is_one_line(file: Path) -> None:
    file.unlink()
    result = CliRunner().invoke(main, ["keys", "check", "--config", str(file.parent / "firsthop.toml")])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"firsthop: {file}: No such file")
