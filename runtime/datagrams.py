"""Batches of datagrams as Python's own objects, for sockets where a batch is a few: recvmmsg(2) and sendmmsg(2) on
buffers that are laid out once.

An operation on arrays costs a microsecond or two, however little it is about, and ``runtime.batch`` has some twenty for
each batch. Here a datagram costs a microsecond, and a batch nothing.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence

import numpy as np

from runtime.batch import ROOM_BYTES, BatchSocket

__all__ = ["Datagram", "DatagramSocket"]

Datagram = tuple[bytes, bytes]
"""An address, as in ``wire.address``, and what came from there or is to go there."""

_FROM = struct.Struct("=2x2s4x16s")  # of a struct sockaddr_in6: port, address
_NOWHERE = bytes(18)  # to port 0, for which the kernel refuses a datagram
_NAME_BYTES = 32
_STAMP_WORDS = 4


class DatagramSocket(BatchSocket):
    """A bound UDP socket, of which up to ``most`` datagrams are read or sent by one call. After ``take``, ``came_s``
    has the time at which the kernel got each, in seconds of CLOCK_MONOTONIC, and ``refused`` is the number of those
    that were left out, because they were empty or longer than ROOM_BYTES."""

    def __init__(self, sock: socket.socket, most: int) -> None:
        super().__init__(sock, most, stamped=most)
        self.came_s: list[float] = []
        self.refused = 0
        self._row = self.data.strides[0]
        self._rows = self.data.reshape(-1).data
        self._row_lengths = self._in.lengths.data
        self._senders = self._in.names.reshape(-1).data
        self._clock = self._stamps.reshape(-1).data
        self._emptied_at = time.monotonic()
        # What is sent is copied here: where its bytes are in memory is Python's alone to know.
        self._room = np.zeros((most, ROOM_BYTES), np.uint8)
        self._out.iov[:, 0] = self._room.ctypes.data + ROOM_BYTES * np.arange(most, dtype=np.uint64)
        self._out_rows = self._room.reshape(-1).data
        self._out_iov = self._out.iov.reshape(-1).data
        self._receivers = self._out.names.reshape(-1).data

    def take(self, now: float) -> list[Datagram]:
        """A batch of what has come by ``now``, in seconds of CLOCK_MONOTONIC. There is no more for now where these and
        the ``refused`` are fewer than ``most``."""
        # The kernel stamps by the time of day. Whatever that is set to, nothing came before there was nothing left.
        ahead_s, since = time.time() - now, self._emptied_at
        count = self.receive()
        batch: list[Datagram] = []
        came_s: list[float] = []
        self.came_s = came_s
        if count:
            rows, row, lengths, senders, clock = self._rows, self._row, self._row_lengths, self._senders, self._clock
            for i in range(count):
                length = lengths[i]
                if 0 < length <= ROOM_BYTES:
                    port, host = _FROM.unpack_from(senders, _NAME_BYTES * i)
                    at = row * i
                    batch.append((host + port, bytes(rows[at : at + length])))
                    at = _STAMP_WORDS * i
                    came = clock[at + 2] + 1e-9 * clock[at + 3] - ahead_s
                    came_s.append(now if came > now else came if came > since else since)
        self.refused = count - len(batch)
        if count < self._most:
            self._emptied_at = now
        return batch

    def give(self, batch: Sequence[Datagram]) -> tuple[int, int]:
        """Sends a batch of any size. Returns how many the kernel took, and how many are done with, as
        ``BatchSocket.send`` does. One longer than ROOM_BYTES cannot be sent."""
        rows, iov, receivers, ipv4 = self._out_rows, self._out_iov, self._receivers, self._ipv4
        sent = 0
        for begin in range(0, len(batch), self._most):
            i = 0
            for address, datagram in batch[begin : begin + self._most]:
                length = len(datagram)
                if length > ROOM_BYTES:
                    address, datagram, length = _NOWHERE, b"", 0
                at = ROOM_BYTES * i
                rows[at : at + length] = datagram
                iov[2 * i + 1] = length
                at = _NAME_BYTES * i
                if ipv4:
                    receivers[at + 2 : at + 8] = address[16:] + address[12:16]
                else:
                    receivers[at + 2 : at + 4] = address[16:]
                    receivers[at + 8 : at + 24] = address[:16]
                i += 1
            took, done = self._send_some(i)
            sent += took
            if done < i:
                return sent, begin + done
        return sent, len(batch)
