"""Configuration files and commands to try: each is written, loaded or run, and what is said of it is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.config import load
from runtime.errors import ConfigError


def written(directory: Path, text: str) -> Path:
    path = directory / "firsthop.toml"
    path.write_text(text)
    return path


def complaint(directory: Path, text: str) -> str:
    path = written(directory, text)
    with pytest.raises(ConfigError) as refused:
        load(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said


def firsthop(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """The exit code, output and errors of the command; one that runs for ever is a failed test."""
    argv = [sys.executable, "-m", "firsthop", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})
    return done.returncode, done.stdout, done.stderr


def one_line(code: int, errors: str) -> str:
    """The one line of a command that could not start."""
    assert code == 2, errors
    assert errors.startswith("firsthop: ")
    assert errors.count("\n") == 1, errors
    assert errors.endswith("\n")
    return errors
