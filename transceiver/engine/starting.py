"""The start of the engine by whoever needs it first: one process a host and user, and not again at once when it fails.

The engine holds the lock on a file beside its socket for as long as it lives, which it inherits from who started it. In
the file is how often it failed of late, and why.
"""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, convert
from msgspec import ValidationError as Invalid

from transceiver.engine import EngineError
from transceiver.engine.frames import VERSION

__all__ = ["Connection", "connected", "failed", "lock_of", "running_well", "socket_of"]

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_PATIENCE_S = 180.0  # it loads in 3 s on a machine that has time for it, and in a minute on one that is busy
_LOOK_S = 0.05
_LIMIT_BYTES = 1 << 20  # of what a stream reads ahead
_MOST_DELAY_S = 60.0
_started: list[subprocess.Popen[bytes]] = []  # so that those which ended are reaped


@atexit.register
def _left() -> None:
    """Leaves to itself, without a warning, what runs on."""
    for process in _started:
        if process.poll() is None:
            process.returncode = 0


class _History(Struct):
    starts: int = 0
    """Since it last ran well."""
    at: float = 0.0
    why: str = ""

    @property
    def next_at(self) -> float:
        """When it may be started again: the first two times at once."""
        return self.at + (0.0 if self.starts < 2 else min(_MOST_DELAY_S, 2.0 ** (self.starts - 2)))


def socket_of(run: Path) -> Path:
    """Where the engine listens."""
    return run / f"models-{VERSION}.sock"


def lock_of(run: Path) -> Path:
    """The file whose lock it holds."""
    return run / f"models-{VERSION}.lock"


async def connected(run: Path, command: Sequence[str]) -> Connection:
    """A connection to the engine of the folder ``run``, which is started with ``command`` and the number of the
    descriptor of its lock where nobody has. Raises EngineError."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await asyncio.open_unix_connection(socket_of(run), limit=_LIMIT_BYTES)
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        except OSError as e:
            raise EngineError(f"{socket_of(run)}: {e.strerror or e}") from None
        await asyncio.to_thread(_start, run, command)
        if time.monotonic() > deadline:
            raise EngineError(f"the models did not load within {_PATIENCE_S:g} s")
        await asyncio.sleep(_LOOK_S)


def running_well(lock: int) -> None:
    """Takes note, as the engine, that it does: when it ends, it may be started at once."""
    _write(lock, _History())


def failed(lock: int, why: str) -> None:
    """Takes note, as the engine, of why it cannot run."""
    history = _read(lock)
    history.why = why
    _write(lock, history)


def _start(run: Path, command: Sequence[str]) -> None:
    """Starts it, unless it runs, or is being started. Raises EngineError where it is too early to try again."""
    _started[:] = [process for process in _started if process.poll() is None]
    try:
        run.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(lock_of(run), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as e:
        raise EngineError(f"agents.engine.run: {run}: {e.strerror or e}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        history = _read(lock)
        now = time.time()
        if now < history.next_at <= now + _MOST_DELAY_S:
            why = history.why or "it ended"
            raise EngineError(f"the models cannot be used: {why} (tried again in {history.next_at - now:.0f} s)")
        history.starts += 1
        history.at, history.why = now, ""
        _write(lock, history)
        _started.append(
            subprocess.Popen(  # noqa: S603  # our own interpreter
                [*command, str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is not for it: calls may end in peace
            )
        )
    except BlockingIOError:
        pass
    except OSError as e:
        raise EngineError(f"the models cannot be started: {e.strerror or e}") from None
    finally:
        os.close(lock)


def _read(lock: int) -> _History:
    try:
        return convert(json.loads(os.pread(lock, 4096, 0)), _History)
    except (ValueError, Invalid):
        return _History()


def _write(lock: int, history: _History) -> None:
    text = json.dumps({"starts": history.starts, "at": history.at, "why": history.why[:500]}).encode()
    os.pwrite(lock, text, 0)
    os.ftruncate(lock, len(text))
