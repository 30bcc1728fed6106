"""Properties of the running process: its name, its priority, its CPUs, and its capabilities.

Processes that face the network need no capability at all.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from runtime.errors import ConfigError

__all__ = ["FIRST", "cpus", "drop_capabilities", "instance", "set_name", "set_nice", "set_session_nice", "step_back"]

FIRST = -10  # the nice value of those that media waits for

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


def set_name(name: str) -> None:
    """Sets the name that ps and top show, at most 15 bytes of it (PR_SET_NAME)."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def set_nice(nice: int) -> None:
    """Gives this process the priority ``nice``, where that is allowed. With FIRST it runs before others that want its
    core. One of a worker's others is the kernel's thread that brings datagrams: under a flood it would go on bringing
    what nobody has time to read."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)


def set_session_nice(nice: int) -> None:
    """Gives the session that this process leads the priority ``nice``, where the kernel has priorities of sessions
    (sched(7), autogroup): there each session has the same share of a core, and ``set_nice`` compares the processes of
    one session alone. The session of another process is left as it is."""
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(nice))


def step_back() -> None:
    """Has this thread, and the processes that it starts, run as others do (nice 0) though its process goes first."""
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def instance(folder: Path) -> str:
    """A name that is the same for every start with ``folder`` on this host since it booted, and differs on another host
    or in another container."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    place = [(s.st_dev, s.st_ino) for s in (os.stat(there), os.stat("/proc/self/ns/net"))]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    return hashlib.blake2b(repr((boot, place)).encode(), digest_size=6).hexdigest()
