"""A file of secrets: it is made or replaced whole or not at all, by one process at a time; only its owner reads it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from wire.exposure import too_open

__all__ = ["create", "locked", "narrow", "replace"]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock on ``path``. Raises BlockingIOError where another process does."""
    # On the folder: each replacement makes the file another one, and a lock file would have to be left behind.
    folder = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(folder)


def create(path: Path, text: str, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Makes ``path``, with ``text`` in it from its first moment on; ``owner`` are user and group.

    Raises FileExistsError where something has that name, or another OSError, and has then changed nothing.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w") as file:
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)  # unlike a rename, it takes nobody's place
    finally:
        os.unlink(name)
    _sync(path.parent)


def narrow(descriptor: int) -> None:
    """Takes from an open file the permissions that a file of secrets must not have. Anything that is no file stays as
    it is.

    Raises OSError where that cannot be.
    """
    about = os.fstat(descriptor)
    excess = too_open(about.st_mode, about.st_uid)
    if stat.S_ISREG(about.st_mode) and excess:
        os.fchmod(descriptor, stat.S_IMODE(about.st_mode) & ~0o066)


def replace(path: Path, text: str) -> None:
    """Replaces the text of ``path``, so that a reader sees the old text or the new one, also after a power cut; owner
    and permissions stay.

    Raises OSError, and has then changed nothing.
    """
    path = path.resolve()  # a link to the file stays one
    old = path.stat()
    if not os.access(path, os.W_OK):
        # A rename asks only for the folder's permission; a file that was made read-only was meant to stay as it is.
        raise PermissionError(errno.EACCES, "this user may not write it")
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w") as file:
            new = os.fstat(file.fileno())
            if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
                os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
