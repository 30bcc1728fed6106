"""A check of who besides its owner can read a file of secrets."""

from __future__ import annotations

import shlex
import stat
from pathlib import Path

__all__ = ["exposure", "too_open"]


def too_open(mode: int, owner: int) -> int:
    """The permission bits of ``mode`` that a file of secrets of the user ``owner`` must not have.

    The rule is the one of PostgreSQL for its TLS key: nobody but the owner, and where the owner is root its group may
    read as well (0640), so that a service can have what it cannot change.
    """
    return mode & 0o066 & ~(0o640 if owner == 0 else 0o600)


def exposure(path: Path) -> str:
    """One line that says who else can read or change the file at ``path``, and what to do. Empty where nobody can, and
    for anything that is no file."""
    try:
        about = path.stat()
    except OSError:
        return ""
    excess = too_open(about.st_mode, about.st_uid)
    if not excess or not stat.S_ISREG(about.st_mode):
        return ""
    who = "everybody" if excess & 0o006 else "its group"
    does = "read" if excess & 0o044 else "change"
    # A group of root's own is nobody: the shorter advice is the better one.
    mode = 0o640 if about.st_uid == 0 and about.st_gid != 0 and about.st_mode & 0o040 else 0o600
    return f"{who} can {does} it: chmod {mode:o} {shlex.quote(str(path))}"
