"""The demo's models: loaded, with a question to speak; or one line says why there are none."""

from __future__ import annotations

import subprocess
import sys
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from demo.models import LISTENS_S, Models
from lab.appliance import Loopback
from transceiver.engine import VOICE_RATE_HZ, weights
from transceiver.engine.starting import socket_of

T = TypeVar("T")


class Other:
    """This machine, where another program runs in the place of any."""

    address = "127.0.0.1"

    def __init__(self, program: str) -> None:
        self._program = program
        self.started: list[subprocess.Popen[Any]] = []

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        self.started.append(subprocess.Popen([sys.executable, "-c", self._program], **options))
        return self.started[0]

    def inside(self, work: Callable[[], T]) -> T:
        return work()


def test_the_reason_why_there_are_none_is_passed_on(tmp_path: Path) -> None:
    with Models(tmp_path / "models", Other("print('this CPU has no AVX2')")) as models:
        assert models.trouble() == "this CPU has no AVX2"
    assert (tmp_path / "models").stat().st_mode & 0o777 == 0o700


def test_one_that_dies_is_told_by_its_last_words(tmp_path: Path) -> None:
    with Models(tmp_path / "models", Other("import sys; sys.exit('the disk is full\\n')")) as models:
        assert models.trouble() == "the models ended: the disk is full"
    with Models(tmp_path / "silent", Other("")) as models:
        assert models.trouble() == "the models ended: they said nothing"


def test_they_are_kept_until_nobody_wants_them(tmp_path: Path) -> None:
    place = Other("import sys; print(flush=True); sys.stdin.read()")
    with Models(tmp_path / "models", place) as models:
        assert models.trouble() == ""
        (process,) = place.started
        assert process.poll() is None
    assert process.returncode == 0


@pytest.mark.trials
@pytest.mark.skipif(weights.trouble() is not None, reason=str(weights.trouble()))
def test_the_models_themselves_say_the_question(tmp_path: Path) -> None:
    with Models(tmp_path / "models", Loopback()) as models:
        assert models.trouble() == ""
        with wave.open(str(models.recording)) as said:
            assert said.getframerate() == VOICE_RATE_HZ
            assert said.getnframes() > (LISTENS_S + 1) * VOICE_RATE_HZ
        assert socket_of(models.run).exists()
        engines = [each for each in psutil.process_iter() if str(models.run) in " ".join(_command(each))]
    psutil.wait_procs(engines, timeout=60)
    assert not [each for each in engines if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert not socket_of(models.run).exists()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
