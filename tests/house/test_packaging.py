"""The distributions: a wheel that has all that services need and nothing else, and a source that has everything."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from paths import ROOT

from lab.machines.wheels import build, copy_source

RELEASE = "firsthop-" + tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DATA = f"{RELEASE}.data/data/share/firsthop"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files, and nothing that is made from them."""
    return copy_source(tmp_path_factory.mktemp("repository") / "source")


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    return build(shutil.copytree(source, folder / "built", symlinks=True), folder, "sdist")


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)  # which was made a moment ago
    (only,) = folder.iterdir()
    return only


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From the source distribution, which so proves to be enough."""
    return build(unpacked, tmp_path_factory.mktemp("wheel"))


def files_of(folder: Path, below: str = "") -> set[str]:
    """The files of a folder, or those below one folder in it, by their paths from the first."""
    return {str(path.relative_to(folder)) for path in (folder / below).rglob("*") if path.is_file()}


def test_the_source_distribution_has_every_file_of_the_repository(source: Path, unpacked: Path) -> None:
    there = {name for name in files_of(unpacked) if not name.startswith("firsthop.egg-info/")}
    assert there == files_of(source) | {"PKG-INFO", "setup.cfg"}
    assert {".gitignore", "scripts/setup", "systemd/firsthop-edge.service", "tests/house/test_packaging.py"} <= there


def test_the_wheel_has_every_module_of_the_services_and_its_data(source: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("bpf", "caller", "edge", "firsthop", "rtc", "runtime", "transceiver", "wire"):
        assert files_of(source, package) <= names


def test_the_wheel_has_nothing_else(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    services = {"bpf", "caller", "edge", "firsthop", "rtc", "runtime", "transceiver", "wire"}
    assert tops == services | {f"{RELEASE}.dist-info", f"{RELEASE}.data"}


def test_units_documents_and_pins_are_beside_the_programs(source: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for folder in ("systemd", "docs"):
            assert {f"{DATA}/{name}" for name in files_of(source, folder)} <= names
        pins = archive.read(f"{DATA}/base.txt").decode()
    assert pins == (ROOT / "requirements/base.txt").read_text()
    for unit in sorted(files_of(source, "systemd")):
        (page,) = [line for line in (ROOT / unit).read_text().splitlines() if line.startswith("Documentation=")]
        assert page.partition("/.venv/")[2] == "share/firsthop/docs/operations.md", unit


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        about = Parser().parsestr(archive.read(f"{RELEASE}.dist-info/METADATA").decode())
        names = archive.namelist()
    assert (about["Name"], about["Requires-Python"], about["License-Expression"]) == (
        "firsthop",
        ">=3.11",
        "Apache-2.0",
    )
    assert f"{RELEASE}.dist-info/licenses/LICENSE" in names


def test_the_same_source_makes_the_same_wheel(unpacked: Path, wheel: Path, tmp_path: Path) -> None:
    again = build(shutil.copytree(unpacked, tmp_path / "source", symlinks=True), tmp_path / "again")
    assert again.read_bytes() == wheel.read_bytes()


def test_a_command_that_is_not_in_the_wheel_is_not_offered(wheel: Path, tmp_path: Path) -> None:
    """Unpacked, with this environment's other packages."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        # Of this environment, where the source is installed.
        "sys.meta_path = [each for each in sys.meta_path if 'editable' not in getattr(each, '__module__', '')]; "
        "from firsthop.cli import main; main()"
    )

    def said(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-c", program, *argv],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )

    usage = said("--help")
    assert usage.returncode == 0, usage.stderr
    commands = {line.split()[0] for line in usage.stdout.partition("Commands:")[2].splitlines() if line.strip()}
    assert commands >= {"call", "edge", "init", "status", "transceiver"}
    assert "demo" not in commands
    asked = said("demo")
    assert (asked.returncode, "No such command 'demo'" in asked.stderr) == (2, True)
