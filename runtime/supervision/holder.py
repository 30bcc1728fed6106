"""A small process that keeps a supervisor's descriptors where there is no systemd: it outlives the supervisor.

It listens on a SOCK_SEQPACKET socket. Whoever connects is given what is held, one descriptor and its name a message,
then READY, and from then on says what sd_notify(3) would: ``FDSTORE=1`` or ``FDSTOREREMOVE=1``, and ``FDNAME=``. It
serves one supervisor at a time; a second is told BUSY. It ends when it is told END, or when no supervisor has come for
too long. The children hang on a pipe that is held here too, so nothing is left running for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["BUSY", "END", "LONGEST", "READY", "start"]

READY = "READY=1"
BUSY = "BUSY=1"
END = "STOPPING=1"
LONGEST = 1024
_PATIENCE_S = 600.0
_MOST_FDS = 4


class _Holder:
    def __init__(self, listener: socket.socket, patience_s: float) -> None:
        self._listener = listener
        self._patience_s = patience_s
        self._supervisor: socket.socket | None = None
        self._held: dict[str, int] = {}
        self._told_to_end = False

    def run(self) -> None:
        """Holds descriptors until it is told to end, or nobody came for too long."""
        last_seen = time.monotonic()
        while not self._told_to_end and time.monotonic() < last_seen + self._patience_s:
            poll = select.poll()  # select(2) knows no descriptor above 1023
            poll.register(self._listener, select.POLLIN)
            if self._supervisor is not None:
                poll.register(self._supervisor, select.POLLIN)
            readable = {fd for fd, _ in poll.poll(1000 * min(1.0, self._patience_s))}
            # First all that who is there has to say: its end, or that it died, must not be news to its successor.
            if self._supervisor is not None and self._supervisor.fileno() in readable:
                self._hear(self._supervisor)
            elif self._listener.fileno() in readable:
                self._welcome(self._listener.accept()[0])
            if self._supervisor is not None:
                last_seen = time.monotonic()

    def _welcome(self, connection: socket.socket) -> None:
        connection.settimeout(5.0)
        with contextlib.suppress(OSError):
            _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (0, os.geteuid()):
                connection.close()
                return
            if self._supervisor is not None:
                connection.send(BUSY.encode())
                connection.close()
                return
            for name, fd in self._held.items():
                socket.send_fds(connection, [name.encode()], [fd])
            connection.send(READY.encode())
            self._supervisor = connection
            return
        connection.close()

    def _hear(self, supervisor: socket.socket) -> None:
        text, fds = b"", list[int]()
        with contextlib.suppress(OSError):
            text, fds, _, _ = socket.recv_fds(supervisor, LONGEST, _MOST_FDS)
        if not text and not fds:
            supervisor.close()
            self._supervisor = None
            return
        said = dict(line.partition("=")[::2] for line in text.decode(errors="replace").splitlines())
        name = said.get("FDNAME", "")
        if "FDSTORE" in said and name and fds:
            self._forget(name)
            self._held[name] = fds.pop(0)
        elif "FDSTOREREMOVE" in said:
            self._forget(name)
        elif END in text.decode(errors="replace").splitlines():
            self._told_to_end = True
        for fd in fds:
            os.close(fd)

    def _forget(self, name: str) -> None:
        if (fd := self._held.pop(name, None)) is not None:
            os.close(fd)


def start(listener: socket.socket, path: Path, give_up: Iterable[str], patience_s: float = _PATIENCE_S) -> None:
    """Starts a holder that listens with ``listener`` at ``path``, in a session of its own: Ctrl-C is not for it.

    When it ends it removes the files and folders in ``give_up``, and ``path``.
    """
    subprocess.Popen(  # noqa: S603
        [
            sys.executable,
            "-m",
            "runtime.supervision.holder",
            str(listener.fileno()),
            str(patience_s),
            *give_up,
            str(path),
        ],
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ).returncode = 0  # nobody waits for it: it outlives us, or ends when we say so


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if not path.is_dir():
            path.unlink()
            return
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an edge that lives has it locked (edge/xdp/pins.py)
        for entry in path.iterdir():
            entry.unlink()
        path.rmdir()


def main() -> None:
    """``python -m runtime.supervision.holder DESCRIPTOR PATIENCE_S [PATH ...]``."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a supervisor that starts hears no signal yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    descriptor, patience_s, *paths = sys.argv[1:]
    listener = socket.socket(fileno=int(descriptor))
    holder = _Holder(listener, float(patience_s))
    holder.run()
    # Still listening: whoever comes now waits until everything is gone, and then starts another.
    for path in paths:
        _remove(Path(path))


if __name__ == "__main__":
    main()
