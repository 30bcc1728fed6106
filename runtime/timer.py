"""A timer as a descriptor (timerfd_create(2)), for waits that are shorter than an event loop's: asyncio counts whole
milliseconds."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

__all__ = ["Timer"]

_libc = ctypes.CDLL(None, use_errno=True)
_NS = 1_000_000_000


class Timer:
    """A timer; its descriptor is readable when the time is over. Raises OSError."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_create: {os.strerror(number)}")
        # struct itimerspec: the interval of repetitions, none; then the time, seconds and nanoseconds.
        self._spec = (ctypes.c_long * 4)()

    def set(self, after_s: float) -> None:
        """Sets the timer, once, to the time ``after_s`` from now on; one that was set before is set anew."""
        self._spec[2], self._spec[3] = divmod(max(1, round(after_s * _NS)), _NS)
        _libc.timerfd_settime(self.fd, 0, self._spec, None)

    def over(self) -> None:
        """Makes the descriptor unreadable until the timer is set and over again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        """Closes the descriptor."""
        os.close(self.fd)
