"""What asks the supervisor to end or to start anew waits until it can do so in order: not half-way up, or down."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import NoReturn

from runtime import logs

__all__ = ["become_anew", "hear", "hold_back", "to_start_anew"]

_ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def hold_back() -> None:
    """Signals wait, through an exec too. To be called before any thread is started that is not to hear them, and numpy
    starts some when it is imported."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)


def hear() -> None:
    """What waited comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)


async def to_start_anew() -> None:
    """Returns once SIGHUP has asked for it, and what would be started says that it can be (``--check``)."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    while True:
        await asked.wait()
        asked.clear()
        trial = await asyncio.create_subprocess_exec(sys.executable, *sys.orig_argv[1:], "--check")
        if await trial.wait() == 0:
            return
        logs.get().error("not started anew: see the line before; everything goes on as it is")


def become_anew() -> NoReturn:
    """Another program, or another configuration, in this process. Raises OSError."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
