"""The compiled form: it is run where it was made of this very source, and otherwise the source is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from transceiver import compiled


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A source of one module, with nothing made of it."""
    (tmp_path / "rtc").mkdir()
    (tmp_path / "rtc/gate.py").write_text("_MOST = 1\n")
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    monkeypatch.setattr(compiled, "reason", None)
    monkeypatch.delenv(compiled.SWITCH, raising=False)
    finders = list(sys.meta_path)
    yield tmp_path
    assert sys.meta_path == finders


def make() -> Path:
    made = compiled.folder()
    made.mkdir(parents=True)
    return made


def test_where_nothing_was_made_the_source_runs_and_nobody_is_told() -> None:
    compiled.use()
    assert compiled.reason == compiled.NEVER
    assert not compiled.missed(compiled.reason)


def test_what_was_made_of_this_source_is_chosen() -> None:
    made = make()
    assert compiled.choose() == made


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_what_was_made_of_another_source_never_runs(source: Path, change: str) -> None:
    make()
    gate = source / "rtc/gate.py"
    if change == "content":
        gate.write_text("_MOST = 2\n")
    elif change == "name":
        gate.rename(gate.with_name("door.py"))
    else:
        (source / "rtc/bucket.py").touch()
    compiled.use()
    assert compiled.reason == compiled.STALE
    assert compiled.missed(compiled.reason)


def test_what_was_made_for_another_python_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    monkeypatch.setattr(compiled, "_SUFFIX", ".cpython-399-x86_64-linux-gnu.so")
    assert compiled.choose() == compiled.STALE


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    monkeypatch.setenv(compiled.SWITCH, "off")
    compiled.use()
    assert compiled.reason == compiled.OFF
    assert not compiled.missed(compiled.reason)


def test_both_forms_are_never_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    monkeypatch.setattr(compiled, "MODULES", ("rtc.never", "transceiver"))
    compiled.use()
    assert compiled.reason == "transceiver was imported before the compiled form could be"
    assert compiled.missed(compiled.reason)


def test_where_it_cannot_be_loaded_the_source_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (make() / f"{compiled.GROUP}__mypyc{EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    monkeypatch.setattr(compiled, "MODULES", ())
    compiled.use()
    assert (compiled.reason or "").startswith("the compiled form cannot be loaded: ")
    assert compiled.missed(compiled.reason)


def test_other_modules_are_imported_as_ever() -> None:
    finder = compiled.Finder(make())
    assert finder.find_spec("rtc.sdp.offer") is None
    spec = finder.find_spec("rtc.rtp.gate")
    assert spec is not None
    assert spec.origin == str(compiled.folder() / f"rtc/rtp/gate{EXTENSION_SUFFIXES[0]}")


def test_every_module_of_it_is_there() -> None:
    root = Path(compiled.__file__).parents[2]
    assert all((root / f"{name.replace('.', '/')}.py").is_file() for name in compiled.MODULES)
