"""The way of media past an edge's workers: the two sockets that an edge of this host has handed over.

By one comes the media of callers who proved themselves, which XDP brings there; by the other it goes to them, from the
edge's shared port. Whatever else is said, and all that is in doubt, goes by the edge's workers (``link.py``).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rtc.frame import FRAME_S
from runtime.datagrams import Datagram, DatagramSocket
from runtime.timer import Timer
from transceiver.counters import RX_EXPRESS, RX_EXPRESS_LATE, TX_DATAGRAMS
from transceiver.links.rhythm import Rhythm

__all__ = ["Batch", "Clock", "Expressway", "Take"]

# A clock's frames that are due at a round are made in the same turn of the loop, when the round comes a little later.
_BEHIND_S = 0.00005
# What comes in a flood is read a millisecond at a time: frames are due in between.
_AT_ONCE, _TURN_S = 32, 0.001
_SENT_AT_ONCE = 64

Batch = Sequence[Datagram]
Take = Callable[[bytes, Batch, Sequence[float]], None]


class Clock(Protocol):
    """The clock by which calls hear (``rtc.pacer``)."""

    before: set[Callable[[], None]]
    origin: float


class Expressway:
    """The way to the clients of ``edge``, by ``reading`` and ``sending``, which are this object's from now on. Each
    batch of (address, datagram) is given to ``take(edge, batch, came_s)``, with the times at which they came."""

    def __init__(self, edge: bytes, reading: socket.socket, sending: socket.socket, take: Take, clock: Clock) -> None:
        self._edge, self._take, self._clock = edge, take, clock
        self._reading, self._sending = reading, sending
        self._in, self._out = DatagramSocket(reading, _AT_ONCE), DatagramSocket(sending, _SENT_AT_ONCE)
        self._batch: list[Datagram] = []
        self._loop = asyncio.get_running_loop()
        self._rhythm = Rhythm(time.monotonic())
        self._timer = Timer()
        self._again: asyncio.Handle | None = None
        self._late = RX_EXPRESS_LATE.of("media")
        self.taken = 0  # datagrams, so far
        self._by_clock = False
        self._round_s = 0.0
        self._draining = False
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

    def look_by_clock(self, by_clock: bool) -> None:
        """Has nothing but the clock wake it from now on, before frames are due, because all media waits for that; or
        has datagrams wake it. To be called now and then, in case that the clock has stopped."""
        if by_clock != self._by_clock:
            self._by_clock = by_clock
            (self._clock.before.add if by_clock else self._clock.before.discard)(self._drain)
            self._look_every(0.0)
        if by_clock and self._again is None:
            self._again = self._loop.call_soon(self._drain)

    def send(self, address: bytes, datagram: bytes) -> None:
        """Queues a datagram for a client; it leaves before the loop waits again."""
        if not self._batch and not self._draining:
            self._loop.call_soon(self._flush)
        self._batch.append((address, datagram))

    def close(self) -> None:
        """Takes what has come, sends what is queued, and ends."""
        self._loop.remove_reader(self._reading.fileno())
        self._loop.remove_reader(self._timer.fd)
        self._clock.before.discard(self._drain)
        if self._again is not None:
            self._again.cancel()
        while self._receive(time.monotonic()):
            pass
        self._flush()
        self._timer.close()
        for sock in (self._reading, self._sending):
            sock.close()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        sent, done = self._out.give(batch)
        TX_DATAGRAMS["expressed"] += sent
        if sent < len(batch):
            TX_DATAGRAMS["unsendable"] += done - sent
            TX_DATAGRAMS["socket_full"] += len(batch) - done

    def _on_time(self) -> None:
        self._timer.over()
        self._drain()

    def _drain(self) -> None:
        """Reads for a turn. What is answered at once leaves with the end of it, and not in another turn of the loop."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._draining, now = True, time.monotonic()
        try:
            taken = self._take_until(now, now + _TURN_S)
        finally:
            self._draining = False
            self._flush()
        if not self._by_clock and (round_s := self._rhythm.wait(taken, now)) != self._round_s:
            self._look_every(round_s)

    def _take_until(self, now: float, until: float) -> int:
        """Takes what has come, as long as there is time. Returns the number of datagrams."""
        taken = 0
        while True:
            count = self._receive(now)
            if count and not taken:
                self._note_age(now)
            taken += count
            if count < _AT_ONCE:
                return taken
            now = time.monotonic()
            if now >= until:
                self._again = self._loop.call_soon(self._drain)
                return taken

    def _note_age(self, now: float) -> None:
        """Counts how much longer than it was meant to the oldest datagram of a look has waited."""
        if self._in.came_s:
            waited_s = now - self._in.came_s[0] - (FRAME_S if self._by_clock else self._round_s)
            self._late.add(max(0, round(1e9 * waited_s)))

    def _look_every(self, round_s: float) -> None:
        """Looks so far apart from now on; at 0 whenever something comes, or by the clock."""
        self._round_s = round_s
        self._timer.every(round_s, self._clock.origin + _BEHIND_S)
        if round_s or self._by_clock:
            self._loop.remove_reader(self._reading.fileno())
        else:
            self._loop.add_reader(self._reading.fileno(), self._drain)

    def _receive(self, now: float) -> int:
        """Takes a batch. Returns the number of datagrams in it."""
        batch = self._in.take(now)
        count = len(batch) + self._in.refused
        if count == 0:
            return 0
        self.taken += count
        RX_EXPRESS["taken"] += len(batch)
        RX_EXPRESS["refused"] += self._in.refused
        try:
            self._take(self._edge, batch, self._in.came_s)
        except Exception as e:  # a fault of ours with one batch, and no reason to lose the next
            self._loop.call_exception_handler({"message": "a batch of the express path failed", "exception": e})
        return count
