"""What a child of a supervisor does about itself: its name, its end, and the capabilities that it gives up.

Those that face the network need no capability at all.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime import logs
from runtime.errors import ConfigError
from wire.keys import KeyFileError

__all__ = [
    "MEND",
    "call_itself",
    "cpus",
    "drop_capabilities",
    "end_with",
    "go_first",
    "in_a_line",
    "instance",
    "step_back",
]

MEND = 2  # the exit code that says that a person must mend something first

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522


def cpus(key: str, wanted: tuple[int, ...]) -> list[int]:
    """The CPUs ``wanted`` by configuration ``key``, or else all that this process may use. Raises ConfigError."""
    allowed = sorted(os.sched_getaffinity(0))
    if missing := sorted(set(wanted) - set(allowed)):
        raise ConfigError(f"{key}: this process may not use {missing}, only {allowed}")
    if len(set(wanted)) != len(wanted):
        raise ConfigError(f"{key}: a core is named twice")
    return list(wanted) or allowed


def drop_capabilities() -> None:
    """Clears every capability of this process, for good. Raises OSError if the kernel refuses."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for result in (_libc.capset(header, nothing), _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)):
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot give up capabilities: {os.strerror(number)}")


@contextmanager
def in_a_line() -> Iterator[None]:
    """What a person must mend is one line of a child's log, and its exit code says so."""
    try:
        yield
    except (ConfigError, KeyFileError) as e:
        logs.get().error("this configuration cannot run", why=str(e))
        sys.exit(MEND)


def call_itself(name: str) -> None:
    """The name that ps and top show, at most 15 bytes of it (PR_SET_NAME)."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def go_first() -> None:
    """Has this process run before others that want its core (nice -10), where that is allowed. One of a worker's others
    is the kernel's thread that brings datagrams: under a flood it would go on bringing what nobody has time to read."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)


def step_back() -> None:
    """Has this thread, and the processes that it starts, run as others do (nice 0) though its process goes first."""
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def instance(folder: Path) -> str:
    """The same for every start with ``folder`` on this host since it booted; another on another host or in another
    container."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    place = [(s.st_dev, s.st_ino) for s in (os.stat(there), os.stat("/proc/self/ns/net"))]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    return hashlib.blake2b(repr((boot, place)).encode(), digest_size=6).hexdigest()


def end_with(lifeline: int) -> None:
    """The end of this process, at once, when nobody is left who holds the write end of the pipe ``lifeline``: neither
    a supervisor, nor what keeps descriptors for the next one. No worker outlives both."""
    # Who gets the signal is a property of the open file, and the inherited one is shared with all children.
    own = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK)
    os.close(lifeline)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    # Not SIGTERM, which one that hangs would never hear; it would keep its port from the next edge.
    fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    if select.select([own], [], [], 0)[0]:  # it was over before we asked
        signal.raise_signal(signal.SIGKILL)
