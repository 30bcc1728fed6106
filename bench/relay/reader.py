"""A process that takes an edge's media past the workers: it agrees on that as a transceiver does, and becomes ``echo``.

    python -m bench.relay.reader RUN KEY_FILE ECHO

It reads nothing itself: ``echo.c`` has the sockets, and with them the connection, as long as it runs.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from runtime.process import instance
from wire import express, keys
from wire.express import MOST_BYTES, Challenge, ExpressError, Proofs, Reads, Sockets

__all__ = ["main"]

NUMBER = 1
PATIENCE_S = 10.0


def main(run: Path, key_file: Path, echo: str) -> None:
    """Does not return. Raises OSError and ExpressError."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.settimeout(PATIENCE_S)
    door.connect(str(next(run.glob(f"*{express.SUFFIX}"))))
    challenge = express.read(door.recv(MOST_BYTES))
    if not isinstance(challenge, Challenge):
        raise ExpressError("the edge does not say who it is")
    door.send(Proofs(keys.load(key_file), challenge).claim(NUMBER, instance(run)).dump())
    said, fds, _, _ = socket.recv_fds(door, MOST_BYTES, 2)
    answer = express.read(said)
    if not isinstance(answer, Sockets):
        raise ExpressError(f"the edge hands nothing over: {answer}")
    reading = socket.socket(fileno=fds[0])
    reading.settimeout(PATIENCE_S)
    while reading.recv(MOST_BYTES) != answer.probe:
        pass
    door.send(Reads().dump())
    for fd in (door.fileno(), *fds):
        os.set_inheritable(fd, True)
    os.execv(echo, [echo, "--sockets", *map(str, fds)])  # noqa: S606


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
