"""The watchdog of systemd (WatchdogSec=, sd_watchdog_enabled(3)): it kills a service that has not said for a while that
its loop turns. Where the unit has none, nothing is said of it."""

from __future__ import annotations

import os

from runtime.supervision.beats import Beat
from runtime.supervision.notify import notify

__all__ = ["MainBeat", "ahead", "alive", "ready"]

# From before a program is replaced until the next one is up, which may have to import and compile everything first.
_AHEAD_S = 60


def _usual() -> str | None:
    """The microseconds that the unit says; None without a watchdog."""
    return os.environ.get("WATCHDOG_USEC")


def alive() -> None:
    """Says that the loop turns; to be called at least once a second."""
    if _usual():
        notify("WATCHDOG=1")


def ready() -> None:
    """Says that the service is up. From now on the watchdog waits no longer than its unit says."""
    usual = _usual()
    notify(f"READY=1\nWATCHDOG_USEC={usual}" if usual else "READY=1")


def ahead() -> None:
    """Has the watchdog wait for the program that replaces this one, until that is ready."""
    if _usual():
        notify(f"WATCHDOG_USEC={_AHEAD_S * 1_000_000}")


class MainBeat(Beat):
    """The heartbeat of a service that has no supervisor but systemd."""

    def __init__(self) -> None:
        super().__init__(-1, 0)

    def __call__(self) -> None:
        """See Beat."""
        alive()
