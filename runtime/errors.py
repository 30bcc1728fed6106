"""Errors that a person has to mend before a service can start."""

from __future__ import annotations

import errno

__all__ = ["ConfigError", "bind_trouble"]


class ConfigError(ValueError):
    """A configuration that cannot be used: one line that names the key and what is wrong."""


def bind_trouble(e: OSError) -> str:
    """The reason why a socket cannot have its address, and what to do."""
    if e.errno == errno.EADDRINUSE:
        return "the port is taken: stop what uses it or choose another"
    if e.errno == errno.EADDRNOTAVAIL:
        return "this host does not have that address"
    return e.strerror or str(e)
