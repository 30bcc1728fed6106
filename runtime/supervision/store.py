"""Descriptors that outlive the supervisor: sockets, the children's pidfds, and the lifeline of these children.

Under systemd its file descriptor store keeps them (``FileDescriptorStoreMax=``, sd_notify(3)). Elsewhere a holder does
(``runtime/supervision/holder.py``), a process of our own that is told the same and gives them to the next supervisor.
Where neither is possible nothing is kept: the lifeline breaks with the supervisor, and the children end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from runtime import logs
from runtime.errors import ConfigError
from runtime.supervision import holder
from runtime.supervision.notify import notify

__all__ = ["HolderStore", "Store", "StoreInUse", "SystemdStore", "lifeline", "open_store"]

# What a supervisor that starts itself anew says to itself: name=descriptor, separated by blanks.
_ENVIRONMENT = "FIRSTHOP_DESCRIPTORS"
_LIFELINE = "lifeline-write"
_LISTEN_FDS_START = 3  # sd_listen_fds(3)
_TRIES = 3
_ANSWERS_WITHIN_S = 5.0  # a holder that lives; a start never waits longer for one that hangs


class StoreInUse(Exception):
    """The error that another supervisor of this edge lives; one line says where."""


class Store:
    """The descriptors that were kept, by name, and those that are to be kept. Names are of printable ASCII without
    ``:``, ``=`` and blanks.

    This one keeps nothing.
    """

    def __init__(self) -> None:
        pairs = (pair.rpartition("=") for pair in os.environ.pop(_ENVIRONMENT, "").split())
        self._hold({name: int(fd) for name, _, fd in pairs})

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what an earlier supervisor left and nobody took yet."""
        return tuple(self._held)

    def take(self, name: str) -> int | None:
        """A descriptor that an earlier supervisor left. It is the caller's from now on, and stays kept."""
        return self._held.pop(name, None)

    def keep(self, name: str, fd: int) -> None:
        """Keeps what is behind ``fd``, which stays open here too until it is dropped."""
        self._kept[name] = fd
        self._tell(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", [fd])

    def drop(self, name: str) -> None:
        """Stops keeping what has that name."""
        self._kept.pop(name, None)
        if (fd := self._held.pop(name, None)) is not None:
            os.close(fd)
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={name}", [])

    def mend(self) -> None:
        """Repairs the store; call it about once a second, because whatever keeps the descriptors may have died."""

    def end(self) -> None:
        """Stops keeping anything."""
        for name in tuple(self._kept):
            self.drop(name)

    def pass_on(self) -> None:
        """Prepares for an exec: the program that comes finds everything again, whether something else keeps it
        or not."""
        for fd in self._kept.values():
            os.set_inheritable(fd, True)
        os.environ[_ENVIRONMENT] = " ".join(f"{name}={fd}" for name, fd in self._kept.items())

    def _hold(self, held: dict[str, int]) -> None:
        for fd in held.values():
            os.set_inheritable(fd, False)
        self._held = held
        self._kept = dict(held)

    def _tell(self, state: str, fds: Sequence[int]) -> None:
        """Passes a message to what keeps the descriptors."""


class SystemdStore(Store):
    """The store of this unit in systemd: what it holds is passed to each start (sd_listen_fds(3))."""

    def __init__(self) -> None:
        super().__init__()
        environment = {name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
        if environment["LISTEN_PID"] == str(os.getpid()):
            names = environment["LISTEN_FDNAMES"].split(":")
            self._hold({name: _LISTEN_FDS_START + i for i, name in enumerate(names[: int(environment["LISTEN_FDS"])])})

    def _tell(self, state: str, fds: Sequence[int]) -> None:
        notify(state, fds)


class HolderStore(Store):
    """The store in a holder that listens at ``path``, which is started if there is none.

    A holder that nobody asks again removes the files and folders in ``give_up``. Raises StoreInUse, and OSError
    where no holder can be had.
    """

    def __init__(self, path: Path, give_up: Sequence[Path] = ()) -> None:
        super().__init__()
        self._path = path
        self._give_up = [str(place) for place in give_up]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection, held = self._open()
        except OSError:
            self.pass_on()  # to a store that makes do without a holder
            raise
        if self._kept:
            self._tell_all(held)
        else:
            self._hold(held)

    def mend(self) -> None:
        """See Store."""
        try:
            self._connection.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return  # there, and silent
        except OSError:
            pass
        with contextlib.suppress(OSError, StoreInUse):
            connection, held = self._open()
            self._connection.close()
            self._connection = connection
            self._tell_all(held)

    def end(self) -> None:
        """See Store. The holder ends too."""
        self._tell(holder.END, [])
        self._kept.clear()

    def _tell(self, state: str, fds: Sequence[int]) -> None:
        # One that died is replaced by mend; media needs none.
        with contextlib.suppress(OSError):
            socket.send_fds(self._connection, [state.encode()], fds, socket.MSG_DONTWAIT)

    def _tell_all(self, held: dict[str, int]) -> None:
        """Tells everything to a holder that knows no more than ``held``."""
        for fd in held.values():
            os.close(fd)
        # Children live as long as this one is held: who is held together with it must be all of them.
        for name, fd in sorted(self._kept.items(), key=lambda kept: kept[0] == _LIFELINE):
            self.keep(name, fd)

    def _open(self) -> tuple[socket.socket, dict[str, int]]:
        """A connection to the holder, and what it holds; it is started if none is there. Raises StoreInUse and
        OSError."""
        for _ in range(_TRIES):
            # Two that start at once must not each put a holder in this place.
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                connection = self._connect() or self._start()
            finally:
                os.close(folder)
            held: dict[str, int] = {}
            try:
                self._receive(connection, held)
                connection.settimeout(None)
                return connection, held
            except BaseException as e:
                connection.close()
                for fd in held.values():
                    os.close(fd)
                if not isinstance(e, ConnectionError):
                    raise
            # It ended just now, and removed everything, or it was killed.
        raise ConnectionError("what should hold them ends at once")

    def _receive(self, connection: socket.socket, held: dict[str, int]) -> None:
        while True:
            try:
                text, fds, _, _ = socket.recv_fds(connection, holder.LONGEST, 1)
            except TimeoutError:
                raise TimeoutError("what holds them hangs") from None
            if text == holder.READY.encode():
                return
            if text == holder.BUSY.encode():
                raise StoreInUse(f"another runs already: its holder listens at {self._path}")
            if not fds:
                raise ConnectionResetError
            held[text.decode()] = fds[0]

    def _connect(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(_ANSWERS_WITHIN_S)
        try:
            connection.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except OSError as e:
            connection.close()
            raise TimeoutError(f"what holds them hangs: {e}") from None
        return connection

    def _start(self) -> socket.socket:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            self._path.unlink(missing_ok=True)
            listener.bind(str(self._path))
            self._path.chmod(0o600)
            listener.listen(8)
            connection = self._connect()
            assert connection is not None  # whoever listens need not accept yet
            holder.start(listener, self._path, self._give_up)
        return connection


def lifeline(store: Store) -> tuple[int, int]:
    """The reading and the writing end of a pipe: the children have the first, and end when nobody has the other."""
    reading, writing = store.take("lifeline-read"), store.take("lifeline-write")
    if reading is None or writing is None:
        # One end alone, of a supervisor that died between the two, must not end up beside another pipe's.
        store.drop("lifeline-read")
        store.drop("lifeline-write")
        reading, writing = os.pipe()
        store.keep("lifeline-write", writing)
        store.keep("lifeline-read", reading)
    return reading, writing


def open_store(key: str, path: Path, give_up: Sequence[Path] = ()) -> Store:
    """The store: systemd's where systemd started us, else a holder's at ``path``. Raises ConfigError, about ``key``,
    where another supervisor has it."""
    if "NOTIFY_SOCKET" in os.environ:
        return SystemdStore()
    try:
        return HolderStore(path, give_up)
    except StoreInUse as e:
        raise ConfigError(f"{key}: {e}") from None
    except OSError as e:
        logs.get().warning("calls will not survive this process: nobody keeps its children", path=str(path), why=str(e))
        return Store()
