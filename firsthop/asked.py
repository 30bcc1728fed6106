"""What asks the supervisor to end or to start anew waits until it can do so in order: not half-way up, or down."""

from __future__ import annotations

import signal

__all__ = ["hear", "hold_back"]

_ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def hold_back() -> None:
    """Signals wait, through an exec too. To be called before any thread is started that is not to hear them, and numpy
    starts some when it is imported."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)


def hear() -> None:
    """What waited comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
