"""What a child of the supervisor does about itself: its name, its end, and the capabilities that it gives up.

Workers and signaling face the network and need no capability at all.
"""

from __future__ import annotations

import ctypes
import os
import signal

__all__ = ["call_itself", "die_with_parent", "drop_capabilities"]

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522


def drop_capabilities() -> None:
    """Clears every capability of this process, for good. Raises OSError if the kernel refuses."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for result in (_libc.capset(header, nothing), _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)):
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot give up capabilities: {os.strerror(number)}")


def call_itself(name: str) -> None:
    """The name that ps and top show, at most 15 bytes of it (PR_SET_NAME)."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def die_with_parent() -> None:
    """For a child between fork and exec: no worker outlives the supervisor that holds its socket."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
