"""Compiled programs are kept for the next start, by whoever may be trusted with that."""

from __future__ import annotations

import os
from pathlib import Path

import packets as p
import pytest
from steer_run import CPUS, KEYS, loaded

from edge.xdp import kernel, program
from edge.xdp.compiled import Compiled, Kept
from edge.xdp.steering import Steering, SteeringUnavailable

# A constant of 64 bits, the map behind descriptor 7, a constant that only looks like a map, and an end.
CODE = bytes.fromhex("1801000007000000 0000000000000000 1811000007000000 0000000000000000") + bytes.fromhex(
    "1802000018110000 1811000000000000 9500000000000000"
)
ONE = {"steer": Compiled.unlinked(CODE, {7: "flows"})}


def only(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_a_program_is_linked_to_other_maps_than_it_was_compiled_with() -> None:
    compiled = ONE["steer"]
    assert compiled.maps == {2: "flows"}
    assert compiled.linked({"flows": 7}) == CODE
    assert compiled.linked({"flows": 258}) == CODE[:20] + b"\x02\x01\0\0" + CODE[24:]
    with pytest.raises(KeyError):
        Compiled.unlinked(CODE, {8: "flows"})


def test_what_was_kept_is_found_by_what_it_was_made_from(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    assert kept.get("source") is None
    kept.put("source", ONE)
    assert kept.get("source") == ONE
    assert kept.get("another") is None
    assert only(tmp_path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("broken", [b"", b"\n", b"x\n{}", bytes(100), None])
def test_a_file_that_is_not_whole_does_not_count(tmp_path: Path, broken: bytes | None) -> None:
    kept = Kept(tmp_path)
    kept.put("source", ONE)
    file = only(tmp_path)
    file.write_bytes(file.read_bytes()[:-1] if broken is None else broken)
    assert kept.get("source") is None
    kept.put("source", ONE)
    assert kept.get("source") == ONE


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_write_does_not_count(tmp_path: Path, mode: int) -> None:
    Kept(tmp_path).put("source", ONE)
    only(tmp_path).chmod(mode)
    assert Kept(tmp_path).get("source") is None


@pytest.mark.needs_root
def test_a_file_of_another_user_does_not_count(tmp_path: Path) -> None:
    Kept(tmp_path).put("source", ONE)
    os.chown(only(tmp_path), 65534, 65534)
    assert Kept(tmp_path).get("source") is None


def test_a_link_does_not_count(tmp_path: Path) -> None:
    Kept(tmp_path).put("source", ONE)
    file = only(tmp_path)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert Kept(tmp_path).get("source") is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for number in range(20):
        kept.put(f"source {number}", ONE)
        os.utime(max(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime_ns), (number, number))
    assert len(list(tmp_path.iterdir())) == 8
    assert kept.get("source 19") == ONE
    assert kept.get("source 0") is None


def test_a_folder_that_is_not_there_keeps_nothing(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "none")
    kept.put("source", ONE)
    assert kept.get("source") is None


@pytest.mark.needs_root
def test_the_second_start_compiles_nothing_and_loads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tag(steering: Steering) -> str:
        return kernel.facts(steering.prog_fd)["prog_tag"]

    with loaded(compiled=tmp_path) as first:
        monkeypatch.setattr(program, "_compiled", None)
        with loaded(compiled=tmp_path) as second:
            same = tag(first)
            assert tag(second) == same
            assert kernel.facts(second.flows_fd)["map_id"] != kernel.facts(first.flows_fd)["map_id"]
    monkeypatch.undo()
    with loaded(p.MEDIA_PORT + 1, compiled=tmp_path) as other:
        assert tag(other) != same
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.needs_root
def test_what_the_kernel_refuses_is_one_line_and_its_verifier_s_words_are_a_note(tmp_path: Path) -> None:
    with loaded(compiled=tmp_path):
        file = only(tmp_path)
    bad = {name: Compiled(bytes.fromhex("9500000000000000"), {}) for name in ("steer", "overflow")}
    Kept(tmp_path).put("another", bad)
    os.replace(max(set(tmp_path.iterdir()) - {file}), file)
    with pytest.raises(SteeringUnavailable, match="does not load: ") as failure:
        Steering.load(p.MEDIA_PORT, None, KEYS, CPUS, compiled=tmp_path)
    assert "\n" not in str(failure.value)
    assert any("R0 !read_ok" in note for note in failure.value.__notes__)
