"""The beginning of a child process: what it gives up, what its supervisor tells it, and what it ends with."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from runtime import logs
from runtime.errors import ConfigError
from runtime.process import drop_capabilities, set_name, set_nice
from runtime.supervision.beats import Beat
from wire.keys import KeyFileError

__all__ = ["MEND", "ChildSpec", "become_child", "in_a_line", "step_down"]

MEND = 2  # the exit code that says that a person must mend something first


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """The text on a child's standard input, JSON. ``name`` is what ps shows, ``log`` the arguments of
    ``logs.configure``, ``lifeline`` the reading end of the pipe that it ends with, ``beat`` descriptor and place of its
    ``Beat``, ``cpu`` the only one that it runs on, if any, and ``own`` what its program alone knows."""

    name: str
    own: dict[str, Any]
    log: dict[str, Any]
    lifeline: int
    beat: tuple[int, int] = (-1, 0)
    cpu: int | None = None

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, text: bytes) -> ChildSpec:
        return cls(**json.loads(text))


def become_child(
    name: str, nice: int | None = None, prepare: Callable[[], None] = lambda: None
) -> tuple[dict[str, Any], Beat] | None:
    """Makes this process the child that its standard input asks for. Returns what its program alone knows, and its
    beat.

    It has the priority ``nice``, does what ``prepare`` does, and is then called ``name`` until it is told. Nothing is
    read, and nothing prepared, before its capabilities are gone. None means that it is not wanted: whoever started it
    has ended or closed its standard input.
    """
    step_down(name, nice, prepare)
    text = sys.stdin.buffer.read()
    if not text:
        return None
    spec = ChildSpec.parse(text)
    _end_with(spec.lifeline)
    set_name(spec.name)
    if spec.cpu is not None:
        os.sched_setaffinity(0, {spec.cpu})
    logs.configure(**spec.log)
    return spec.own, Beat(*spec.beat)


def step_down(name: str, nice: int | None = None, prepare: Callable[[], None] = lambda: None) -> None:
    """The part of ``become_child`` for one whose standard input is not a spec: it leaves the group's signals to its
    parent, takes its priority, gives up every capability, does what ``prepare`` does, and then takes its name. Raises
    OSError."""
    # Ctrl-C and a terminal that hangs up reach the whole group; the supervisor says when it is time to end.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if nice is not None:
        set_nice(nice)
    drop_capabilities()
    prepare()
    set_name(name)


@contextmanager
def in_a_line() -> Iterator[None]:
    """Turns an error that a person must mend into one line of the child's log, and an exit code that says so."""
    try:
        yield
    except (ConfigError, KeyFileError) as e:
        logs.get().error("this configuration cannot run", why=str(e))
        sys.exit(MEND)


def _end_with(lifeline: int) -> None:
    """Ends this process, at once, when nobody is left who holds the write end of the pipe ``lifeline``: neither a
    supervisor, nor whatever keeps descriptors for the next one. No child outlives both."""
    # Who gets the signal is a property of the open file, and the inherited one is shared with all children.
    own = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK)
    os.close(lifeline)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    # Not SIGTERM, which one that hangs would never hear; it would keep its port from the next edge.
    fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    if select.select([own], [], [], 0)[0]:  # it was over before we asked
        signal.raise_signal(signal.SIGKILL)
