"""scripts/setup with and without small models: it says one line where they cannot be had, and tries again next time."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from paths import ROOT

# In place of Python: it notes what it is asked to install, and refuses models, or what they need, as files here say.
PYTHON = """#!/bin/sh
case "$*" in
"-c "*) cat unsuitable 2>/dev/null ;;
*) echo "$*" >>asked ;;
esac
case "$*" in
*base.txt*) [ ! -e "no base" ] || { cat "no base" >&2; exit 1; } ;;
*weights.txt*) [ ! -e refusal ] || { cat refusal >&2; exit 1; } ;;
esac
exit 0
"""
# As another user than root, on a machine with all of Debian's packages.
OTHERS = {"id": "echo 1000", "dpkg-query": "echo install ok installed"}
NETWORK = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError': /simple/hibari-tts/\n"
NO_VERSION = "ERROR: Could not find a version that satisfies the requirement hibari-tts==0.2.1 (from versions: {})\n"
HASHES = """ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. Otherwise, examine them.
    hibari-tts==0.2.1 from https://files.example/hibari_tts-0.2.1.whl (from -r requirements/models.txt (line 1)):
        Expected sha256 00
"""
FULL = "ERROR: Exception:\nTraceback\nOSError: [Errno 28] No space left on device\n"
REFUSALS = {
    NETWORK + NO_VERSION.format("none"): "the package index cannot be reached",
    NO_VERSION.format("0.1"): NO_VERSION.format("0.1").removeprefix("ERROR: ").strip(),
    HASHES: "hibari-tts==0.2.1 is not the file that was pinned",
    FULL: "no space is left on the disk, or in /tmp",
}


@dataclass(frozen=True)
class Tree:
    """A source tree with an environment whose Python only notes things."""

    root: Path

    def setup(self, *argv: str) -> tuple[int, list[str]]:
        """The exit code, and the lines that are said."""
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", str(self.root / "scripts/setup"), *argv],
            env={**os.environ, "PATH": path, "TMPDIR": "/tmp"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout == ""
        return done.returncode, [line.removeprefix("setup: ") for line in done.stderr.splitlines()]

    def asked(self) -> list[str]:
        """What was installed since this was asked last: "base", "models" or "firsthop"."""
        said = self.root / "asked"
        lines = said.read_text().splitlines() if said.exists() else []
        said.unlink(missing_ok=True)
        names = {"base.txt": "base", "weights.txt": "models", "--editable": "firsthop"}
        return [name for line in lines for word, name in names.items() if word in line]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    for folder in ("scripts", "requirements"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    programs = {".venv/bin/python": PYTHON, ".venv/bin/pip": ""}
    programs |= {f"bin/{name}": f"#!/bin/sh\n{line}\n" for name, line in OTHERS.items()}
    for name, text in programs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return Tree(tmp_path)


def test_a_demo_gets_models_once_and_their_size_is_said_before(tree: Tree) -> None:
    code, lines = tree.setup("demo")
    assert code == 0
    assert "294 MB to download, 540 MB on disk" in lines[-1]
    assert "MODELS=no" in lines[-1]
    assert tree.asked() == ["base", "firsthop", "models"]
    for command in (("demo",), ("models",), ()):
        assert tree.setup(*command) == (0, [])
    assert tree.asked() == []


def test_without_an_argument_there_are_none(tree: Tree) -> None:
    assert tree.setup()[0] == 0
    assert tree.asked() == ["base", "firsthop"]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_demo_goes_on_without_models_that_cannot_be_had_and_tries_again(tree: Tree, refusal: str) -> None:
    (tree.root / "refusal").write_text(refusal)
    line = f"no small models: {REFUSALS[refusal]} (.venv/setup.log has all that pip said)"
    code, lines = tree.setup("demo")
    assert (code, lines[-2:]) == (0, [line, "going on without them"])
    code, lines = tree.setup("models")
    assert (code, lines[-1]) == (1, line)
    (tree.root / "refusal").unlink()
    tree.asked()
    assert tree.setup("demo")[0] == 0
    assert tree.asked() == ["models"]


def test_without_python_packages_it_ends_with_one_line(tree: Tree) -> None:
    (tree.root / "no base").write_text(HASHES)
    code, lines = tree.setup("demo")
    why = "hibari-tts==0.2.1 is not the file that was pinned (.venv/setup.log has all that pip said)"
    assert (code, lines[1:]) == (1, [f"they cannot be installed: {why}"])
    assert tree.asked() == ["base"]


@pytest.mark.parametrize(("command", "code"), [("demo", 0), ("models", 1)])
def test_a_machine_that_cannot_run_them_downloads_nothing(tree: Tree, command: str, code: int) -> None:
    (tree.root / "unsuitable").write_text("this CPU has no AVX2, which the models need")
    found, lines = tree.setup(command)
    assert (found, lines[1]) == (code, "no small models: this CPU has no AVX2, which the models need")
    assert tree.asked() == ["base", "firsthop"]
