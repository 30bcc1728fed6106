"""The beginning of a supervisor's child: what it does about itself before it begins its work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from runtime.supervision.beats import Beats
from runtime.supervision.child import ChildSpec
from runtime.supervision.store import Store

# It says what it is, and waits.
PROGRAM = """
import json, signal, sys, time
from pathlib import Path
from runtime.supervision import child
from runtime.errors import ConfigError
from runtime.process import FIRST
told = child.become_child("not-yet", FIRST)
if told is None:
    sys.exit(7)
own, beat = told
beat()
with child.in_a_line():
    if own["broken"]:
        raise ConfigError("no such thing")
Path(own["up"]).touch()
time.sleep(600)
"""


class Kid:
    """A child process, the lifeline that it hangs on, and the beats that it counts in."""

    def __init__(self, directory: Path) -> None:
        self._up = directory / "up"
        self.lifeline, self.other_end = os.pipe()
        self.beats = Beats(Store())
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(self.lifeline, self.beats.fd),
        )

    def told(self, *, broken: bool = False, cpu: int | None = None) -> None:
        own = {"up": str(self._up), "broken": broken}
        log: dict[str, Any] = {"level": "info", "form": "json", "process": "kid"}
        spec = ChildSpec("kid-1", own, log, self.lifeline, (self.beats.fd, 5), cpu)
        self.input.write(spec.dump())
        self.input.close()

    @property
    def input(self) -> Any:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def errors(self) -> Any:
        assert self.process.stderr is not None
        return self.process.stderr

    def about(self, key: str) -> str:
        """A line of its /proc/PID/status."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:"))

    @property
    def is_up(self) -> bool:
        return self._up.exists()

    def let_go(self) -> None:
        os.close(self.other_end)
        self.other_end = -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.input, self.errors):
            stream.close()
        os.close(self.beats.fd)
        for fd in (self.lifeline, self.other_end):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def kid(tmp_path: Path) -> Iterator[Kid]:
    kid = Kid(tmp_path)
    yield kid
    kid.close()


def test_what_reads_its_spec_has_nothing_left_to_lose(kid: Kid) -> None:
    until(lambda: kid.about("Name") == "not-yet" and kid.about("NoNewPrivs") == "1")
    for which in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(kid.about(which), 16) == 0, which
    ignored = int(kid.about("SigIgn"), 16)
    assert all(ignored >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGHUP))
    assert not kid.is_up


def test_what_is_told_becomes_it(kid: Kid) -> None:
    cpu = max(os.sched_getaffinity(0))
    kid.told(cpu=cpu)
    until(lambda: kid.is_up)
    assert kid.about("Name") == "kid-1"
    assert kid.about("Cpus_allowed_list") == str(cpu)
    assert kid.beats.count(5) == 1
    for number in (signal.SIGINT, signal.SIGHUP):  # they reach the whole group; the supervisor says when
        kid.process.send_signal(number)
    assert os.getpriority(os.PRIO_PROCESS, kid.process.pid) in (-10, os.getpriority(os.PRIO_PROCESS, 0))
    kid.process.terminate()
    assert kid.process.wait(30) == -signal.SIGTERM


def test_what_nobody_tells_anything_ends(kid: Kid) -> None:
    kid.input.close()
    assert kid.process.wait(30) == 7


def test_what_nobody_holds_any_more_ends_though_it_hangs(kid: Kid) -> None:
    kid.told()
    until(lambda: kid.is_up)
    kid.process.send_signal(signal.SIGSTOP)
    kid.let_go()
    assert kid.process.wait(30) == -signal.SIGKILL


def test_what_a_person_must_mend_is_a_line_and_an_exit_code(kid: Kid) -> None:
    kid.told(broken=True)
    assert kid.process.wait(30) == 2
    (line,) = [json.loads(line) for line in kid.errors.read().splitlines()]
    assert (line["process"], line["why"]) == ("kid", "no such thing")
