"""The signals that end a supervisor, start it anew, or have it leave. They wait until it can follow them in order:
neither half-way up nor half-way down."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import NoReturn

from runtime import logs

__all__ = ["hold_back", "leave", "let_through", "start_anew", "to_start_anew"]

_HELD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def hold_back() -> None:
    """Makes signals wait, through an exec too. Call it before any thread is started that is not to hear them; numpy
    starts some when it is imported."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def let_through() -> None:
    """Lets the signals come: those that waited now, and later ones at once."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


async def to_start_anew() -> None:
    """Returns once SIGHUP has asked for it and a trial of what would be started (``--check``) has succeeded."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, told.set)
    while True:
        await told.wait()
        told.clear()
        trial = await asyncio.create_subprocess_exec(*_program(), "--check")
        if await trial.wait() == 0:
            return
        logs.get().error("not started anew: see the line before; everything goes on as it is")


def start_anew() -> NoReturn:
    """Replaces the program of this process by what is installed now. Raises OSError."""
    argv = _program()
    os.execv(argv[0], argv)  # noqa: S606


def _program() -> list[str]:
    """The argv of what is installed now. A command such as ``.venv/bin/firsthop`` is run by its path, and so by the
    interpreter that it names now: a link in that path may lead to another release, while this process's own interpreter
    is a file of the old one."""
    command = sys.argv[0]
    if sys.orig_argv[1:2] == [command] and os.path.isfile(command) and os.access(command, os.X_OK):
        return [command, *sys.orig_argv[2:]]
    return [sys.executable, *sys.orig_argv[1:]]


def leave() -> NoReturn:
    """Ends this process as if it were killed, but for the exit code: it takes nothing with it, and closes nothing."""
    os._exit(0)
