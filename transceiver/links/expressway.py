"""The way of media past an edge's workers: the two sockets that an edge of this host has handed over.

By one comes the media of callers who proved themselves, which XDP brings there; by the other it goes to them, from the
edge's shared port. Whatever else is said, and all that is in doubt, goes by the edge's workers (``link.py``).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable

import numpy as np

from runtime.batch import ROOM_BYTES, BatchSocket
from runtime.timer import Timer
from transceiver.counters import RX_EXPRESS, RX_EXPRESS_LATE, TX_DATAGRAMS
from transceiver.links.rhythm import Rhythm
from wire.address import SIZE

__all__ = ["Batch", "Expressway", "Take"]

# What comes in a flood is read a millisecond at a time: frames are due in between.
_AT_ONCE, _TURN_S = 32, 0.001
_SENT_AT_ONCE = 64

Batch = list[tuple[bytes, bytes]]
Take = Callable[[bytes, Batch], None]


class Expressway:
    """The way to the clients of ``edge``, by ``reading`` and ``sending``, which are this object's from now on. Each
    batch of (address, datagram) is given to ``take(edge, batch)``."""

    def __init__(self, edge: bytes, reading: socket.socket, sending: socket.socket, take: Take) -> None:
        self._edge, self._take = edge, take
        self._reading, self._sending = reading, sending
        self._in, self._out = BatchSocket(reading, _AT_ONCE), BatchSocket(sending, _SENT_AT_ONCE)
        self._view = memoryview(self._in.data.reshape(-1).data)
        self._row = self._in.data.shape[1]
        self._batch: list[tuple[bytes, bytes]] = []
        self._loop = asyncio.get_running_loop()
        self._rhythm = Rhythm(time.monotonic())
        self._timer = Timer()
        self._again: asyncio.Handle | None = None
        self._waits = False  # for the timer, and not for the socket
        self._wait_ns = 0  # until this look
        self._late = RX_EXPRESS_LATE.of("media")
        self.taken = 0  # datagrams, so far
        self._loop.add_reader(self._timer.fd, self._on_time)
        self._loop.add_reader(reading.fileno(), self._drain)

    @property
    def identities(self) -> tuple[int, int]:
        """Numbers that are the same for the same two sockets, whatever their descriptors are."""
        return os.fstat(self._reading.fileno()).st_ino, os.fstat(self._sending.fileno()).st_ino

    @property
    def dropped(self) -> int:
        """The number of datagrams for which the kernel had no room in the socket, since that was made."""
        return self._in.dropped

    def spare(self, spare_s: float) -> None:
        """Takes note of how long the media of every call can wait."""
        self._rhythm.spare_s = spare_s

    def send(self, address: bytes, datagram: bytes) -> None:
        """Queues a datagram for a client; it leaves before the loop waits again."""
        if not self._batch:
            self._loop.call_soon(self._flush)
        self._batch.append((address, datagram))

    def close(self) -> None:
        """Takes what has come, sends what is queued, and ends."""
        self._loop.remove_reader(self._reading.fileno())
        self._loop.remove_reader(self._timer.fd)
        if self._again is not None:
            self._again.cancel()
        while self._receive():
            pass
        self._flush()
        self._timer.close()
        for sock in (self._reading, self._sending):
            sock.close()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        addresses = np.frombuffer(b"".join([address for address, _ in batch]), np.uint8).reshape(-1, SIZE)
        lengths = np.array([len(datagram) for _, datagram in batch], np.uint16)
        sent, done = self._out.send(addresses, lengths, b"".join([datagram for _, datagram in batch]))
        TX_DATAGRAMS["expressed"] += sent
        if sent < len(batch):
            TX_DATAGRAMS["unsendable"] += done - sent
            TX_DATAGRAMS["socket_full"] += len(batch) - done

    def _on_time(self) -> None:
        self._timer.over()
        self._drain()

    def _drain(self) -> None:
        self._again = None
        taken, now = 0, time.monotonic()
        until = now + _TURN_S
        while True:
            count = self._receive()
            if count and not taken:
                self._note_age()
            taken += count
            if count < _AT_ONCE:
                break
            now = time.monotonic()
            if now >= until:
                self._again = self._again or self._loop.call_soon(self._drain)
                break
        self._wait(self._rhythm.wait(taken, now))

    def _note_age(self) -> None:
        """Counts how much longer than it was meant to the oldest datagram of a look has waited."""
        age_ns = time.time_ns() - self._in.came_ns
        self._late.add(max(0, age_ns - self._wait_ns) if age_ns >= 0 else age_ns)

    def _wait(self, wait_s: float) -> None:
        self._wait_ns = int(1e9 * wait_s)
        if wait_s > 0:
            self._timer.set(wait_s)
        if (wait_s > 0) == self._waits:
            return
        self._waits = wait_s > 0
        if self._waits:
            self._loop.remove_reader(self._reading.fileno())
        else:
            self._loop.add_reader(self._reading.fileno(), self._drain)

    def _receive(self) -> int:
        """Takes a batch. Returns the number of datagrams in it."""
        count = self._in.receive()
        if count == 0:
            return 0
        addresses, view, row = self._in.addresses.tobytes(), self._view, self._row
        batch = [
            (addresses[SIZE * i : SIZE * (i + 1)], bytes(view[row * i : row * i + length]))
            for i, length in enumerate(self._in.lengths.tolist())
            if 0 < length <= ROOM_BYTES
        ]
        self.taken += count
        RX_EXPRESS["taken"] += len(batch)
        if len(batch) < count:
            RX_EXPRESS["refused"] += count - len(batch)
        try:
            self._take(self._edge, batch)
        except Exception as e:  # a fault of ours with one batch, and no reason to lose the next
            self._loop.call_exception_handler({"message": "a batch of the express path failed", "exception": e})
        return count
