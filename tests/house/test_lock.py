"""Installed packages: they are pinned by hashes, and they are all that pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from paths import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = sorted(path.name for path in (ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")


def locked(*names: str) -> dict[str, str]:
    """Version by name of what these files pin, which is each package once."""
    found: dict[str, str] = {}
    for name in names:
        for package, version, _ in PIN.findall((ROOT / "requirements" / name).read_text()):
            assert canonicalize_name(package) not in found, f"{package} stands twice"
            found[canonicalize_name(package)] = version
    return found


def unmet(wanted: list[str], *names: str) -> list[str]:
    """Which of the requirements ``wanted`` the files do not meet."""
    pins = locked(*names)
    each = [Requirement(text) for text in wanted]
    return [str(one) for one in each if not one.specifier.contains(pins.get(canonicalize_name(one.name), "0"))]


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_pins_with_hashes_and_nothing_else(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert PIN.sub("", text) == ""
    assert PIN.search(text)


def test_what_pyproject_asks_for_is_pinned_as_it_asks() -> None:
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    assert unmet(project["dependencies"] + PROJECT["build-system"]["requires"], "base.txt") == []
    assert unmet(extras["dev"], "base.txt", "dev.txt") == []
    assert unmet(extras["dist"], "base.txt", "dist.txt") == []
    assert unmet(extras["compiled"], "base.txt", "compiled.txt") == []
    assert unmet(extras["tracing"], "base.txt", "tracing.txt") == []
    assert unmet(extras["models"], "base.txt", "models.txt") == []
    assert unmet(extras["bench"], "base.txt", "bench.txt", "source.txt") == []


def test_what_it_does_not_pin_as_asked_would_be_seen() -> None:
    assert unmet(["aiohttp<1", "nosuch>=1"], "base.txt") == ["aiohttp<1", "nosuch>=1"]


def test_extras_agree_where_they_have_the_same_package() -> None:
    dev = locked("dev.txt")
    for other in (locked("bench.txt"), locked("compiled.txt"), locked("dist.txt"), locked("models.txt")):
        both = dev.keys() & other.keys()
        assert both
        assert {name: dev[name] for name in both} == {name: other[name] for name in both}


def test_nothing_of_a_gpu_is_installed() -> None:
    names = {name for file in FILES for name in locked(file)} - {"nvidia-ml-py"}  # which is Python that asks the driver
    assert not [name for name in names if name.startswith(("torch", "nvidia", "triton", "cuda"))]


def test_the_licence_that_pyproject_names_is_there_whole() -> None:
    assert (PROJECT["project"]["license"], PROJECT["project"]["license-files"]) == ("Apache-2.0", ["LICENSE"])
    text = (ROOT / "LICENSE").read_text()
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text
