"""A stand-in for a transceiver: it accepts every sealed ufrag, and sends every datagram of the load back.

It does what ``echo.c`` does for the other relays, over the link that firsthop's workers speak, a message at a time.
With ``quiet`` it lets callers in and sends nothing back: what goes past the workers is ``echo.c``'s, and what does not
is lost. With ``between`` it takes tickets for its callers, lets each in when it has one, and answers an edge that asks
whether the way here can be used: ``echo.c``, beside it, sends back what comes by that way.
"""

from __future__ import annotations

import gc
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from msgspec import structs

from wire import address, frames, greeting, keys, link, stun, ufrag
from wire.control import Control, Reader, encode
from wire.encapsulation import FIRST_PORT, PROBE_BYTES, Probes, port_of
from wire.messages import Hello, PathDown, PathUp, Ticket, ToTransceiver
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

    def __init__(self, router: Any, cluster: keys.ClusterKeys, *, quiet: bool, between: bool) -> None:
        self._router = router
        self._quiet = quiet
        self._number = 0 if between else None
        self._ups: dict[bytes, PathUp] = {}
        self._keys = cluster
        self._run = 0
        self._arrived = 0
        self._reader = Reader[ToTransceiver](ToTransceiver)

    def answer(self, worker: bytes, said: bytes) -> None:
        message = self._reader.read(said)
        if isinstance(message, Control):
            if isinstance(message.message, Hello):
                self._send(worker, encode(greeting.hello(spoken()), message.request, VERSION))
            elif isinstance(message.message, Ticket):
                self._take(worker, message.message)
            return
        if (message.lengths == DATAGRAM.itemsize).all() and not self._quiet:
            body = self._stamped(message.body).tobytes()
            self._send(worker, frames.data(message.addresses, message.lengths, body, message.stamp_ns))
            return
        echoes = []
        for client, datagram in message.datagrams():
            if len(datagram) == DATAGRAM.itemsize:
                if self._quiet:
                    continue
                echoes.append((client, self._stamped(datagram).tobytes()))
            elif (response := self._admit(worker, client, datagram)) is not None:
                echoes.append((client, response))
        if echoes:
            self._send(worker, frames.pack_batch(echoes))

    def _take(self, worker: bytes, ticket: Ticket) -> None:
        """Tells the worker that a ticket is known. One whose datagrams would come from the port that asks, as of one
        flow in a thousand, it gives back: that flow gets another."""
        up = self._ups.pop(ticket.address, None)
        if up is not None and port_of(ticket.number) != FIRST_PORT:
            up = self._ups[ticket.address] = structs.replace(up, number=ticket.number)
            self._send(worker, encode(up, None, VERSION))
        elif up is not None:
            self._send(worker, encode(PathDown(address=ticket.address), None, VERSION))

    def _stamped(self, body: bytes) -> np.ndarray[Any, np.dtype[np.void]]:
        batch = np.frombuffer(body, DATAGRAM).copy()
        batch["echoed_ns"] = time.monotonic_ns()
        if run := int(batch["run"][-1]):  # 0 is the warm-up, which nobody counts
            if run != self._run:
                self._run, self._arrived = run, 0
            batch["arrived"] = self._arrived + np.cumsum(batch["run"] == run)
            self._arrived = int(batch["arrived"][-1])
        return batch

    def _admit(self, worker: bytes, client: bytes, datagram: bytes) -> bytes | None:
        """Tells the worker that the path is up and returns the response; None where the check is not good, or the path
        has no ticket yet: a link that is full loses some, and the load asks again."""
        check = stun.parse(datagram)
        if check is None or not (sealed := stun.server_ufrag(check)) or not ufrag.open_sealed(sealed, self._keys.ufrag):
            return None
        new = PathUp(address=client, ufrag=sealed.decode(), ssrcs=[], number=self._number)
        up = self._ups.setdefault(client, new)
        self._send(worker, encode(up, None, VERSION))
        return stun.binding_response(check, client, PASSWORD) if up.number != 0 else None

    def _send(self, worker: bytes, message: bytes) -> None:
        try:
            self._router.send_multipart([worker, message], zmq.NOBLOCK)
        except zmq.ZMQError as e:
            if e.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise  # a worker that is full or gone: the load counts what is lost


class Way:
    """Answers the questions of an edge at that address, by a socket to which nothing but these comes."""

    def __init__(self, here: tuple[str, int], edge: str, cluster: keys.ClusterKeys) -> None:
        self._probes, self._edge = Probes(cluster), address.pack(edge, FIRST_PORT)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.socket.bind(here)
        self.socket.connect((edge, FIRST_PORT))

    def answer(self) -> None:
        asked = self._probes.read(self.socket.recv(PROBE_BYTES + 1), self._edge)
        if asked is not None and asked.kind == "ask":
            self.socket.send(self._probes.dump(asked._replace(kind="answer"), self._edge))


def main(endpoint: str, key_file: Path, mode: str, edge: str) -> None:
    """Serves for ever. ``mode`` is quiet, loud or between; ``edge`` is the edge's address on the way here."""
    cluster = keys.load(key_file)
    router = link.router(zmq.Context(), endpoint, cluster)
    echo = Echo(router, cluster, quiet=mode == "quiet", between=mode == "between")
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    way = Way((host, int(port)), edge, cluster) if mode == "between" else None
    if way is not None:
        poller.register(way.socket, zmq.POLLIN)
    gc.disable()
    while True:
        if way is not None and way.socket.fileno() in dict(poller.poll()):
            way.answer()
        if way is None or router.poll(0):
            worker, said = router.recv_multipart()
            echo.answer(worker, said)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
