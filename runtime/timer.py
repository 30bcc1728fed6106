"""A timer as a descriptor (timerfd_create(2)), for waits that are shorter than an event loop's: asyncio counts whole
milliseconds."""

from __future__ import annotations

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
        # struct itimerspec: the interval of repetitions, then the first time; seconds and nanoseconds each.
        self._spec = (ctypes.c_long * 4)()

    def every(self, interval_s: float, since: float | None = None) -> None:
        """Has the time be over every ``interval_s`` from now on, in place of what was set before; at 0 never. With
        ``since``, in seconds, monotonic, it is over then and whole intervals from that, as far as these are to come."""
        ns = max(1, round(interval_s * _NS)) if interval_s else 0
        first_ns = ns
        if ns and since is not None:
            first_ns = max(1, ns - (time.monotonic_ns() - round(since * _NS)) % ns)
        self._spec[:] = [*divmod(ns, _NS), *divmod(first_ns, _NS)]
        _libc.timerfd_settime(self.fd, 0, self._spec, None)

    def over(self) -> None:
        """Makes the descriptor unreadable until the time is over again."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Closes the descriptor."""
        os.close(self.fd)
