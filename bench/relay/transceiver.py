"""A stand-in for a transceiver: it accepts every sealed ufrag, and sends every datagram of the load back.

It does what ``echo.c`` does for the other relays, over the link that firsthop's workers speak, a message at a time.
With ``quiet`` it lets callers in and sends nothing back: what goes past the workers is ``echo.c``'s, and what does not
is lost.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from wire import frames, greeting, keys, link, stun, ufrag
from wire.control import Control, Reader, encode
from wire.messages import Hello, PathUp, ToTransceiver
from wire.versions import VERSION, spoken

DATAGRAM = np.dtype(  # struct datagram in datagram.h
    [
        ("rtp", "V12"),
        ("run", "<u4"),
        ("sent_ns", "<u8"),
        ("echoed_ns", "<u8"),
        ("sequence", "<u8"),
        ("arrived", "<u8"),
        ("rest", "V124"),
    ]
)
PASSWORD = b"password of every flow"


class Echo:
    """Answers one message at a time."""

    def __init__(self, router: Any, cluster: keys.ClusterKeys, *, quiet: bool) -> None:
        self._router = router
        self._quiet = quiet
        self._keys = cluster
        self._run = 0
        self._arrived = 0
        self._reader = Reader[ToTransceiver](ToTransceiver)

    def answer(self, worker: bytes, said: bytes) -> None:
        message = self._reader.read(said)
        if isinstance(message, Control):
            if isinstance(message.message, Hello):
                self._send(worker, encode(greeting.hello(spoken()), message.request, VERSION))
            return
        if (message.lengths == DATAGRAM.itemsize).all() and not self._quiet:
            body = self._stamped(message.body).tobytes()
            self._send(worker, frames.data(message.addresses, message.lengths, body, message.stamp_ns))
            return
        echoes = []
        for address, datagram in message.datagrams():
            if len(datagram) == DATAGRAM.itemsize:
                if self._quiet:
                    continue
                echoes.append((address, self._stamped(datagram).tobytes()))
            elif (response := self._admit(worker, address, datagram)) is not None:
                echoes.append((address, response))
        if echoes:
            self._send(worker, frames.pack_batch(echoes))

    def _stamped(self, body: bytes) -> np.ndarray[Any, np.dtype[np.void]]:
        batch = np.frombuffer(body, DATAGRAM).copy()
        batch["echoed_ns"] = time.monotonic_ns()
        if run := int(batch["run"][-1]):  # 0 is the warm-up, which nobody counts
            if run != self._run:
                self._run, self._arrived = run, 0
            batch["arrived"] = self._arrived + np.cumsum(batch["run"] == run)
            self._arrived = int(batch["arrived"][-1])
        return batch

    def _admit(self, worker: bytes, address: bytes, datagram: bytes) -> bytes | None:
        """Tells the worker that the path is up and returns the response; None where the check is not good."""
        check = stun.parse(datagram)
        if check is None or not (sealed := stun.server_ufrag(check)) or not ufrag.open_sealed(sealed, self._keys.ufrag):
            return None
        self._send(worker, encode(PathUp(address=address, ufrag=sealed.decode(), ssrcs=[]), None, VERSION))
        return stun.binding_response(check, address, PASSWORD)

    def _send(self, worker: bytes, message: bytes) -> None:
        try:
            self._router.send_multipart([worker, message], zmq.NOBLOCK)
        except zmq.ZMQError as e:
            if e.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise  # a worker that is full or gone: the load counts what is lost


def main(endpoint: str, key_file: Path, *, quiet: bool) -> None:
    cluster = keys.load(key_file)
    router = link.router(zmq.Context(), endpoint, cluster)
    echo = Echo(router, cluster, quiet=quiet)
    gc.disable()
    while True:
        worker, said = router.recv_multipart()
        echo.answer(worker, said)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), quiet=sys.argv[3:] == ["quiet"])
