"""The way out to clients: one socket for all of them, and a short queue for when the socket is full."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np
import numpy.typing as npt

from runtime.metrics import Tally
from wire.outbox import Outbox

__all__ = ["Outlet", "Sender"]


# Addresses, lengths and body, with shapes as in ``BatchSocket.send``.
_Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16], bytes]


class Sender(Protocol):
    """The part of a ``BatchSocket`` that is used here."""

    def send(self, addresses: npt.NDArray[np.uint8], lengths: npt.NDArray[np.uint16], body: bytes) -> tuple[int, int]:
        """Sends a batch. Returns how many datagrams have left, and how many are done with."""


class Outlet:
    """The way out by ``socket``. It counts each datagram in ``tally``: ``sent``, ``unsendable``, or ``socket_full``
    when it waited too long for room."""

    def __init__(self, socket: Sender, tally: Tally) -> None:
        self._socket = socket
        self._tally = tally
        self._outbox = Outbox[_Batch](self._lose)

    @property
    def waits(self) -> bool:
        """Whether anything waits for room."""
        return len(self._outbox) > 0

    def send(self, addresses: npt.NDArray[np.uint8], lengths: npt.NDArray[np.uint16], body: bytes) -> None:
        """Sends a batch, with shapes as in ``BatchSocket.send``."""
        batch = (addresses, lengths, body)
        rest = batch if self._outbox else self._give(batch)
        if rest is not None:
            self._outbox.put(rest, len(rest[2]), time.monotonic())
            self.flush()

    def flush(self) -> None:
        """Sends what waited, as far as there is room for it."""
        self._outbox.flush(self._give, time.monotonic())

    def _give(self, batch: _Batch) -> _Batch | None:
        addresses, lengths, body = batch
        sent, done = self._socket.send(addresses, lengths, body)
        self._tally["sent"] += sent
        if sent < done:
            self._tally["unsendable"] += done - sent
        if done == len(lengths):
            return None
        gone = int(np.add.reduce(lengths[:done], dtype=np.int64))
        return addresses[done:], lengths[done:], body[gone:]

    def _lose(self, batch: _Batch) -> None:
        self._tally["socket_full"] += len(batch[1])
