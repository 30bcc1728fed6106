"""Errors that a person has to mend before a service can start."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from pathlib import Path

__all__ = ["ConfigError", "bind_trouble", "folder_trouble"]


class ConfigError(ValueError):
    """A configuration that cannot be used: one line that names the key and what is wrong."""


def bind_trouble(e: OSError) -> str:
    """The reason why a socket cannot have its address, and what to do."""
    if e.errno == errno.EADDRINUSE:
        return "the port is taken: stop what uses it or choose another"
    if e.errno == errno.EADDRNOTAVAIL:
        return "this host does not have that address"
    if e.errno == errno.EACCES:
        return "ports below 1024 are for root and who has CAP_NET_BIND_SERVICE: run as a service, or choose another"
    return e.strerror or str(e)


def folder_trouble(path: Path) -> str | None:
    """What keeps files from being made in a folder, which is made where it is missing; None where nothing does."""
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as e:
        return e.strerror or str(e)
    return None
