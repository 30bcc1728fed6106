"""A service manager that does with a service's messages and descriptors what sd_notify(3), sd_listen_fds(3) and
systemd.service(5) say of Type=notify, NotifyAccess=main, FileDescriptorStoreMax= and KillMode=process."""

from __future__ import annotations

import ctypes
import os
import platform
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

# Becomes the service: descriptors from 3 on, and LISTEN_PID is its own.
LAUNCH = """
import fcntl, os, sys
names, fds, *argv = sys.argv[1:]
fds = [int(fd) for fd in fds.split()]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3 + len(fds)) for fd in fds]
for fd in fds:
    os.close(fd)
for at, fd in enumerate(high, 3):
    os.dup2(fd, at)
if fds:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names)
os.execvp(argv[0], argv)
"""
KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272}[platform.machine()]
LONGEST_NAME = 255


class ServiceManager:
    """A place to start one service, for ``lab.appliance``. Close it."""

    address = "127.0.0.1"

    def __init__(self, directory: Path, store_max: int = 64) -> None:
        self._store_max = store_max
        self._path = directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(self._path))
        self._main = 0
        self._store: list[tuple[str, int, bool]] = []
        self.said: list[str] = []  # other than of descriptors
        self.refused: list[str] = []  # what systemd would ignore, which the edge has no reason to say
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts the service, with what is stored."""
        with self._lock:
            self._read()  # what the last one said before it died
            fds = [fd for _, fd, _ in self._store]
            names = ":".join(name for name, _, _ in self._store)
            launch = [sys.executable, "-S", "-c", LAUNCH, names, " ".join(map(str, fds)), *argv]
            options["env"] = {**options["env"], "NOTIFY_SOCKET": str(self._path)}
            started = subprocess.Popen(launch, pass_fds=fds, **options)
            self._main = started.pid
            return started

    def inside(self, work: Callable[[], T]) -> T:
        return work()

    @property
    def stored(self) -> list[str]:
        """The names of what is stored."""
        with self._lock:
            self._read()
            return sorted(name for name, _, _ in self._store)

    def dead(self) -> None:
        """Throws the store away: the service has ended, and will not be started again."""
        with self._lock:
            self._read()
            self._forget(lambda _: True)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self.dead()
        self._socket.close()
        self._path.unlink()

    def _listen(self) -> None:
        while not self._over.wait(0.02):
            with self._lock:
                self._read()
                poll = select.poll()
                for _, fd, watched in self._store:
                    if watched:
                        poll.register(fd, 0)
                gone = {fd for fd, _ in poll.poll(0)}
                for entry in [entry for entry in self._store if entry[1] in gone]:
                    self._store.remove(entry)
                    os.close(entry[1])

    def _read(self) -> None:
        while True:
            try:
                text, ancillary, _, _ = self._socket.recvmsg(
                    4096, socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4 * 253), socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return
            fds: list[int] = []
            sender = 0
            for _, kind, data in ancillary:
                if kind == socket.SCM_RIGHTS:
                    fds += struct.unpack(f"{len(data) // 4}i", data)
                elif kind == socket.SCM_CREDENTIALS:
                    sender = struct.unpack("3i", data)[0]
            for fd in fds:
                os.set_inheritable(fd, False)
            self._heed(sender, text.decode(), fds)

    def _heed(self, sender: int, text: str, fds: list[int]) -> None:
        said = dict(line.partition("=")[::2] for line in text.splitlines())
        name = said.get("FDNAME", "stored")
        fits = 0 < len(name) <= LONGEST_NAME and name.isascii() and name.isprintable() and ":" not in name
        if sender != self._main or not fits:
            self.refused.append(text)
        elif said.get("FDSTORE") == "1":
            for fd in fds:
                if any(same_file(fd, stored) for _, stored, _ in self._store) or len(self._store) >= self._store_max:
                    self.refused.append(text)
                    os.close(fd)
                else:
                    self._store.append((name, fd, said.get("FDPOLL") != "0"))
            return
        elif said.get("FDSTOREREMOVE") == "1":
            self._forget(lambda entry: entry[0] == name)
        else:
            self.said.append(text)
        for fd in fds:
            os.close(fd)

    def _forget(self, which: Callable[[tuple[str, int, bool]], bool]) -> None:
        for entry in [entry for entry in self._store if which(entry)]:
            self._store.remove(entry)
            os.close(entry[1])


def same_file(fd: int, other: int) -> bool:
    """Whether one is a duplicate of the other (kcmp(2), KCMP_FILE)."""
    me = os.getpid()
    return ctypes.CDLL(None).syscall(KCMP, me, me, 0, fd, other) == 0
