"""Batches of datagrams: recvmmsg(2) and sendmmsg(2) on preallocated NumPy arrays.

The kernel's structures (``struct mmsghdr``, ``iovec``, ``sockaddr_in6``) are laid out in arrays once, so that a
batch is described by array operations and costs one call. Sockets are IPv6 and dual-stack, or, to send by, IPv4; an
address is 18 bytes as in ``wire.address``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys

import numpy as np
import numpy.typing as npt

__all__ = ["BATCH", "ROOM_BYTES", "BatchSocket", "Words"]

BATCH = 256
ROOM_BYTES = 2048

_libc = ctypes.CDLL(None, use_errno=True)
_SOCKADDR_BYTES = 28  # family 2, port 2, flow info 4, address 16, scope 4
_SOCKADDR_4_BYTES = 16  # family 2, port 2, address 4, padding 8
_NAME_BYTES = 32  # the same, filled up so that the address is two whole words of 64 bits
_MMSGHDR_WORDS = 8  # name, name length, iov, iov length, control, control length, flags, message length
_NAME, _NAME_LENGTH, _IOV, _IOV_LENGTH, _CONTROL, _CONTROL_LENGTH, _LENGTH = 0, 1, 2, 3, 4, 5, 7
_SO_TIMESTAMPNS = 35
_STAMP_WORDS = 4  # of 64 bits: struct cmsghdr, then struct timespec, its seconds and nanoseconds

_SO_MEMINFO, _MEMINFO_BYTES = 55, 36  # linux/sock_diag.h: nine words of 32 bits, the last of them the drops

Bytes = npt.NDArray[np.uint8]
Words = tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint64]]
"""Addresses as numbers, as they stand in a ``struct sockaddr_in6`` in memory: family and port with what follows them up
to 64 bits, and the two halves of the IPv6 address."""


class _Messages:
    """Arrays that describe ``most`` messages to the kernel."""

    def __init__(self, most: int, name_bytes: int = _SOCKADDR_BYTES) -> None:
        self.names: Bytes = np.zeros((most, _NAME_BYTES), np.uint8)
        self.iov = np.zeros((most, 2), np.uint64)
        self.headers = np.zeros((most, _MMSGHDR_WORDS), np.uint64)
        base, stride = self.names.ctypes.data, self.names.strides[0]
        self.headers[:, _NAME] = base + stride * np.arange(most, dtype=np.uint64)
        base, stride = self.iov.ctypes.data, self.iov.strides[0]
        self.headers[:, _IOV] = base + stride * np.arange(most, dtype=np.uint64)
        self.headers[:, _NAME_LENGTH] = name_bytes
        self.headers[:, _IOV_LENGTH] = 1
        self.pointer = ctypes.c_void_p(self.headers.ctypes.data)
        # The upper half of the last word is padding that the kernel leaves alone.
        self.lengths = self.headers.view(np.uint32)[:, 2 * _LENGTH]
        numbers = self.names.view(np.uint64)
        self.words: Words = numbers[:, 0], numbers[:, 1], numbers[:, 2]


class BatchSocket:
    """A bound UDP socket, of which up to ``most`` datagrams are read or sent by one call. After ``receive``, ``data``
    (most, at least ROOM_BYTES), ``lengths``, ``words`` and ``addresses`` hold the batch until the next call. The kernel
    says of the first ``stamped`` of a batch when it got them."""

    def __init__(self, sock: socket.socket, most: int = BATCH, stamped: int = 1) -> None:
        self._socket = sock
        self._fd = sock.fileno()
        self._count = 0
        self._most = most
        # A byte more than there is room for tells what is too long; rows begin on cache lines.
        self.data: Bytes = np.zeros((most, ROOM_BYTES + 64), np.uint8)
        self._in = _Messages(most)
        self._in.iov[:, 0] = self.data.ctypes.data + self.data.strides[0] * np.arange(most, dtype=np.uint64)
        self._in.iov[:, 1] = ROOM_BYTES + 1
        # One control message a batch is enough to know the oldest.
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._stamps = np.zeros((stamped, _STAMP_WORDS), np.int64)
        self._stamp_lengths = self._in.headers[:stamped, _CONTROL_LENGTH]
        self._in.headers[:stamped, _CONTROL] = self._stamps.ctypes.data + self._stamps.strides[0] * np.arange(
            stamped, dtype=np.uint64
        )
        self._addresses: Bytes = np.zeros((most, 18), np.uint8)
        self._ipv4 = sock.family == socket.AF_INET
        self._out = _Messages(most, _SOCKADDR_4_BYTES if self._ipv4 else _SOCKADDR_BYTES)
        self._out.names[:, :2] = np.frombuffer(np.uint16(sock.family).tobytes(), np.uint8)

    @property
    def pollable(self) -> int:
        """What a ``zmq.Poller`` waits on for datagrams."""
        return self._fd

    @property
    def dropped(self) -> int:
        """The number of datagrams that the kernel has dropped because this socket's buffer was full. It counts from the
        socket's beginning, which is before any process that reads it. Another thread may ask."""
        said = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO_BYTES)
        return int.from_bytes(said[-4:], sys.byteorder)

    def receive(self) -> int:
        """Receives a batch. Returns the number of datagrams, at most ``most``; 0 when there are none. Of an IPv4
        socket nothing is received."""
        self._stamp_lengths.fill(8 * _STAMP_WORDS)
        count: int = _libc.recvmmsg(self._fd, self._in.pointer, self._most, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            # An ICMP error of an earlier datagram is reported here; it is nobody's news.
            if number in (errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
                count = 0
            else:
                raise OSError(number, os.strerror(number))
        self._count = count
        return count

    @property
    def came_ns(self) -> int:
        """The time at which the kernel got the batch's first datagram: nanoseconds of CLOCK_REALTIME, which may
        jump."""
        _, _, seconds, ns = self._stamps[0].tolist()
        return int(seconds) * 1_000_000_000 + int(ns)

    @property
    def lengths(self) -> npt.NDArray[np.uint16]:
        """(n,) uint16. A datagram of more than ROOM_BYTES has the length ROOM_BYTES + 1 here, and is cut."""
        return self._in.lengths[: self._count].astype(np.uint16)

    @property
    def words(self) -> Words:
        """The senders, in the form that ``edge/relay/flowtable.py`` looks up."""
        family_and_port, high, low = self._in.words
        return family_and_port[: self._count], high[: self._count], low[: self._count]

    @property
    def addresses(self) -> Bytes:
        """(n, 18) uint8: the senders. One array serves all batches."""
        addresses, names = self._addresses[: self._count], self._in.names[: self._count]
        addresses[:, :16] = names[:, 8:24]
        addresses[:, 16:] = names[:, 2:4]
        return addresses

    def send(self, addresses: Bytes, lengths: npt.NDArray[np.uint16], body: bytes) -> tuple[int, int]:
        """Sends (n, 18) ``addresses`` their datagrams, which stand end to end in ``body``. Returns how many the kernel
        took, and how many are done with; the difference are datagrams that cannot be sent at all. For the rest the
        socket was full."""
        total, sent = len(lengths), 0
        ends = np.cumsum(lengths, dtype=np.uint64)
        starts = ends - lengths
        starts += np.uint64(np.frombuffer(body, np.uint8).ctypes.data if total else 0)
        for at in range(0, total, self._most):
            n = min(self._most, total - at)
            self._out.iov[:n, 0] = starts[at : at + n]
            self._out.iov[:n, 1] = lengths[at : at + n]
            if self._ipv4:
                self._out.names[:n, 4:8] = addresses[at : at + n, 12:16]
            else:
                self._out.names[:n, 8:24] = addresses[at : at + n, :16]
            self._out.names[:n, 2:4] = addresses[at : at + n, 16:]
            took, done = self._send_some(n)
            sent += took
            if done < n:
                return sent, at + done
        return sent, total

    def _send_some(self, n: int) -> tuple[int, int]:
        done = sent = 0
        while done < n:
            pointer = ctypes.c_void_p(self._out.headers.ctypes.data + done * _MMSGHDR_WORDS * 8)
            count = _libc.sendmmsg(self._fd, pointer, n - done, socket.MSG_DONTWAIT)
            if count > 0:
                done += count
                sent += count
                continue
            number = ctypes.get_errno()
            if number == errno.EAGAIN or number == errno.ENOBUFS:
                break
            if number != errno.EINTR:
                done += 1  # this one cannot be sent (unreachable, a pending ICMP error); the others can
        return sent, done
