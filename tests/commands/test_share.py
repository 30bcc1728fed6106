"""``firsthop keys share``: what another cluster's edges are given, and an edge that is given the wrong file."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from configuring import firsthop, one_line

from firsthop.cli import main
from wire.keys import load, new_file_text, read_text
from wire.rotation import KeyRing


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(new_file_text())
    path.chmod(0o600)
    return path


def share(file: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["keys", "share", "--file", str(file), *options])
    return done.exit_code, done.output


def test_what_is_shared_is_a_key_file_without_the_clusters_link(file: Path) -> None:
    code, output = share(file)
    assert code == 0
    shared = file.with_name("shared.toml")
    shared.write_text(output)
    assert load(shared) == load(file).shared()
    assert load(file).link.hex() not in output


def test_a_file_is_its_owners_and_is_written_again_after_a_rotation(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared.toml"
    assert share(file, "-o", str(out)) == (0, "")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    ring = KeyRing.parse(read_text(file), file).prepare(datetime.now(UTC), b"k" * 16)
    file.write_text(ring.text())
    assert share(file, "-o", str(out)) == (0, "")
    assert load(out) == load(file).shared()
    assert b"k" * 16 in load(out).ufrag.values()


def test_no_other_file_is_replaced(file: Path, tmp_path: Path) -> None:
    before = file.read_text()
    code, output = share(file, "-o", str(file))
    assert (code, output.count("\n")) == (2, 1)
    assert "nothing was changed" in output
    assert file.read_text() == before
    other = tmp_path / "other"
    other.write_text("notes")
    assert share(file, "-o", str(other))[0] == 2
    assert other.read_text() == "notes"


@pytest.mark.parametrize("of_its_own", ["cluster.toml", "shared.toml"])
def test_an_edge_that_is_given_its_own_keys_says_so_in_one_line(
    host: dict[str, str], tmp_path: Path, of_its_own: str
) -> None:
    assert share(tmp_path / "cluster.toml", "-o", str(tmp_path / "shared.toml"))[0] == 0
    row = {"name": "iad", "keys": str(tmp_path / of_its_own), "edges": ["tcp://192.0.2.1:7460"]}
    code, _, errors = firsthop("edge", "--check", **host, FIRSTHOP_EDGE__CLUSTERS=json.dumps([row]))
    assert "edge.clusters: iad" in one_line(code, errors)
    assert "own keys" in errors


def test_another_clusters_keys_are_wanted_private_and_then_taken(host: dict[str, str], tmp_path: Path) -> None:
    theirs, shared = tmp_path / "theirs.toml", tmp_path / "shared.toml"
    theirs.write_text(new_file_text())
    theirs.chmod(0o600)
    assert share(theirs, "-o", str(shared))[0] == 0
    row = {"name": "iad", "keys": str(shared), "edges": ["tcp://192.0.2.1:7460"]}
    host |= {"FIRSTHOP_EDGE__CLUSTERS": json.dumps([row]), "FIRSTHOP_EDGE__BACKBONE": "tcp://127.0.0.1:7460"}
    assert firsthop("edge", "--check", **host)[0] == 0
    shared.chmod(0o644)
    code, _, errors = firsthop("edge", "--check", **host)
    assert "edge.clusters" in one_line(code, errors)
