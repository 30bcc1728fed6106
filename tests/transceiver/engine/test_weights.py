"""The models are used only as they were pinned, and one line says why they cannot be used."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from transceiver.engine import weights
from transceiver.engine.weights import Weights


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """A package with a model of five bytes, which must not be imported to be found."""
    folder = tmp_path / "five_bytes"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "model.bin").write_bytes(b"12345")
    monkeypatch.syspath_prepend(str(tmp_path))
    return Weights("five", "five_bytes", {"model.bin": (5, hashlib.sha256(b"12345").hexdigest())})


def test_what_was_pinned_is_found_and_nothing_is_imported(package: Weights, tmp_path: Path) -> None:
    assert weights.need([package]) is None
    assert package.first == tmp_path / "five_bytes" / "model.bin"


@pytest.mark.parametrize("other", [b"12346", b"1234", b"123456"])
def test_another_file_than_the_pinned_one_is_refused(package: Weights, other: bytes) -> None:
    package.first.write_bytes(other)
    assert "not the file" in str(weights.need([package]))


def test_a_missing_file_and_a_missing_package_are_named(package: Weights) -> None:
    package.first.unlink()
    assert "model.bin is missing" in str(weights.need([package]))
    assert "no_such_package is not installed" in str(weights.need([Weights("x", "no_such_package", {})]))
    with pytest.raises(FileNotFoundError, match="no_such_package"):
        _ = Weights("x", "no_such_package", {"a": (1, "")}).first


def test_a_cpu_without_avx2_is_told(tmp_path: Path) -> None:
    old, new, other = tmp_path / "old", tmp_path / "new", tmp_path / "other"
    old.write_text("processor : 0\nflags : fpu sse4_2 avx\n")
    new.write_text("processor : 0\nflags : fpu avx avx2\n")
    other.write_text("processor : 0\nFeatures : asimd\n")
    assert "AVX2" in str(weights._unfit(old))
    assert weights._unfit(new) is None
    assert weights._unfit(other) is None


def test_too_little_memory_is_told(tmp_path: Path) -> None:
    little, enough = tmp_path / "little", tmp_path / "enough"
    little.write_text("MemTotal: 999999999 kB\nMemAvailable: 204800 kB\n")
    enough.write_text("MemTotal: 999999999 kB\nMemAvailable: 2048000 kB\n")
    assert weights._crowded(little) == "200 MiB of memory are free, and the models need 900"
    assert weights._crowded(enough) is None
    assert weights._crowded(tmp_path / "none") is None


def test_a_host_that_should_not_be_given_the_models_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_unfit", lambda: None)
    monkeypatch.setattr(weights, "_crowded", lambda: "crowded")
    assert weights.unsuitable(tmp_path) == "crowded"
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 900 << 20))
    assert weights.unsuitable(tmp_path, memory=False) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, (900 << 20) - 1))
    assert "899 MiB of disk are free" in str(weights.unsuitable(tmp_path, memory=False))
    monkeypatch.setattr(weights, "_unfit", lambda: "unfit")
    assert weights.unsuitable(tmp_path) == "unfit"


def test_the_one_library_of_debians_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_SYSTEM_LIBRARY", "libnosuch.so.1")
    monkeypatch.setattr(weights, "_unfit", lambda: None)
    weights._wrong.cache_clear()
    try:
        why = "libnosuch.so.1 is not here, with which llama.cpp computes: apt-get install libgomp1"
        assert weights.trouble(memory=False) == why
    finally:
        weights._wrong.cache_clear()
