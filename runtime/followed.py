"""Files that a process follows while it runs: it looks once a second, and what is in them decides."""

from __future__ import annotations

import asyncio
import hashlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Never, Protocol, TypeVar

from runtime.logs import Log
from wire.exposure import exposure

__all__ = ["LOOK_EVERY_S", "Followed", "Follows", "follow"]

LOOK_EVERY_S = 1.0

T = TypeVar("T")
Value = TypeVar("Value", covariant=True)


class Follows(Protocol[Value]):
    """A file that is followed, or several as one."""

    @property
    def value(self) -> Value:
        """The value that is in force."""

    def refresh(self) -> bool:
        """Looks whether it has changed. Returns True where it has."""


class Followed(Generic[T]):
    """The files at ``paths`` and their ``value``, which ``load(*paths)`` made of them when they were last good.

    It begins with ``start`` or, without one, with the files, which must then be good (``load`` raises what it will).
    Files that are missing, broken or half written later are one line to ``log``, which calls them ``what``, and the old
    value stays in force. A ``secret`` file that others than its owner can read now is a line too, and its value is
    taken all the same: a key that was removed from it must not stay good. A path of None is a file that is not used.
    """

    def __init__(
        self,
        what: str,
        load: Callable[..., T],
        *paths: Path | None,
        log: Log,
        start: T | None = None,
        secret: bool = False,
    ) -> None:
        self._what, self._load, self._paths = what, load, paths
        self._log = log
        self._secret = secret
        self._seen: tuple[object, ...] = ()
        if start is None:
            self._seen = self._look()
            self.value = load(*paths)
        else:
            self.value = start
            self.refresh()

    def refresh(self) -> bool:
        """Looks at the files, and loads them where they differ from the last look. Returns True where that changed the
        value."""
        # Looked at before they are loaded: a change in between is found at the next look.
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            value = self._load(*self._paths)
        except (OSError, ValueError) as e:
            self._log.warning(f"{self._what} not taken, what it said before stays", why=str(e))
            return False
        for path in self._paths if self._secret else ():
            if path is not None and (why := exposure(path)):
                self._log.warning(f"the next start will refuse the {self._what}", why=f"{path}: {why}")
        if value == self.value:
            return False
        self.value = value
        return True

    def _look(self) -> tuple[object, ...]:
        return tuple(_state(path, self._secret) for path in self._paths if path is not None)


async def follow(file: Follows[T], use: Callable[[T], Any] = lambda _: None) -> Never:
    """Looks at ``file`` once a second, and calls ``use`` with its value whenever that has changed."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if file.refresh():
            use(file.value)


def _state(path: Path, secret: bool) -> tuple[object, ...]:
    """A value that differs whenever the content does, and of a secret file also where somebody else has become able to
    read it.

    Times tell less: they are as coarse as the kernel's tick, and a link may come to lead elsewhere.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # a pipe, say, that reading would empty, or wait for
            return about.st_dev, about.st_ino
        digest = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    except OSError as e:
        return (e.errno,)
    return (digest, about.st_mode, about.st_uid, about.st_gid) if secret else (digest,)
