"""The pipe that aiortc takes for an ICE transport: datagrams are fed into it, and leave through a callback."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from rtc.dtls import flights

__all__ = ["Pipe"]

# OpenSSL waits 1 s before it sends a flight again; a lost datagram would cost that much of everybody's patience.
RESEND_AFTER_S = (0.1, 0.2, 0.4)
_QUEUE = 64


class Pipe:
    """The object that aiortc takes for an ICE transport. ``send`` is called with each datagram that aiortc wants to
    send."""

    def __init__(self, send: Callable[[bytes], None], controlling: bool) -> None:
        self.role = "controlling" if controlling else "controlled"
        self.state = "completed"
        self._sender = send
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE)
        self._flight: list[bytes] | None = []
        self._resends: list[asyncio.TimerHandle] = []
        self._waits = asyncio.Event()  # for more, all that was taken having been read
        self._held: deque[bytes] | None = None
        self.overflowed = 0

    def feed(self, datagram: bytes) -> None:
        """Takes a DTLS datagram from the peer. Past the bound it is dropped and counted, as a network would drop it."""
        if self._held is not None:
            self._held.append(datagram)
            return
        if self._flight is not None and not flights.is_bearable(datagram):
            self.overflowed += 1
            return
        self._forget_flight()
        try:
            self._queue.put_nowait(datagram)
        except asyncio.QueueFull:
            self.overflowed += 1

    def settle(self) -> None:
        """Stops remembering flights, because the handshake is done."""
        self._forget_flight()
        self._flight = None

    def close(self) -> None:
        """Ends whoever waits in ``_recv``."""
        self.settle()
        self.state = "closed"
        self._waits.set()
        while self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    def keep(self, datagrams: Iterable[bytes]) -> None:
        """Gives nothing out from now on, before anything has been given out; these ``datagrams`` have come already."""
        self._held = deque(datagrams, maxlen=_QUEUE)

    async def hold(self) -> None:
        """Gives nothing out from now on, and returns when what was given out has been read."""
        if self._held is None:
            self._held = deque(maxlen=_QUEUE)
        while not self._queue.empty():
            if (datagram := self._queue.get_nowait()) is not None:
                self._held.append(datagram)
        await self._waits.wait()

    def release(self) -> None:
        """Gives out again what comes, and first what was kept."""
        held, self._held = self._held or (), None
        for datagram in held:
            self.feed(datagram)

    @property
    def held(self) -> tuple[bytes, ...] | None:
        """The datagrams that waited when it was asked to hold, and those that have come since; None where it was not
        asked."""
        return None if self._held is None else tuple(self._held)

    async def _recv(self) -> bytes:
        self._waits.set()
        data = await self._queue.get()
        self._waits.clear()
        if data is None:
            raise ConnectionError("closed")
        return data

    async def _send(self, data: bytes) -> None:
        if self.state == "closed":
            raise ConnectionError("closed")
        if self._flight is not None:
            if not self._flight:
                loop = asyncio.get_running_loop()
                self._resends = [loop.call_later(after, self._resend) for after in RESEND_AFTER_S]
            self._flight.append(data)
        self._sender(data)

    def _resend(self) -> None:
        for datagram in self._flight or ():
            self._sender(datagram)

    def _forget_flight(self) -> None:
        for timer in self._resends:
            timer.cancel()
        self._resends.clear()
        if self._flight:
            self._flight.clear()
