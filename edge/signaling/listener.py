"""The listener for connections: it bounds how many there are in all and by address, and gives each the present
certificate.

asyncio's own server would begin TLS before it could be asked whether there is room, and would keep one certificate for
its whole life; and when descriptors run out it writes a traceback each second.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from runtime import logs
from runtime.families import edge as families
from runtime.metrics import Tally
from wire.address import pack

__all__ = ["Listener", "connections_tally"]

_AT_ONCE = 64  # connections, until others have their turn
_HANDSHAKE_S = 5.0
_GOODBYE_S = 5.0  # of TLS
_EXHAUSTED_S = 1.0
_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 section 2.5.5.2

Factory = Callable[[Callable[[], None]], asyncio.BaseProtocol]


class Listener:
    """Takes connections from the listening ``sock``. ``connection(lost)`` makes each one, and ``lost`` is to be called
    when it is over. There are at most ``most`` in all, and ``most_of_one`` from an IPv4 address or IPv6 /64 (0: no
    limit); one more is closed at once. ``tls()`` is the context for the next, or None. ``counts`` counts what became of
    each."""

    def __init__(
        self,
        sock: socket.socket,
        connection: Factory,
        tls: Callable[[], ssl.SSLContext | None],
        *,
        most: int,
        most_of_one: int,
        counts: Tally,
    ) -> None:
        self._sock, self._connection, self._tls = sock, connection, tls
        self._most, self._most_of_one, self._counts = most, most_of_one, counts
        self._from: Counter[bytes] = Counter()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._exhausted = False
        sock.setblocking(False)
        self._listen()

    def __len__(self) -> int:
        return self._from.total()

    async def close(self) -> None:
        """Takes no more connections; those that are there go on."""
        self._loop.remove_reader(self._sock)
        if self._again is not None:
            self._again.cancel()
        for task in self._handshakes:
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    def _listen(self) -> None:
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as e:  # no descriptors, no memory
                self._rest(e)
                return
            self._exhausted = False
            self._take(sock, _origin(address[0]))

    def _rest(self, e: OSError) -> None:
        if not self._exhausted:
            logs.get().error("no connection can be taken for now", why=e.strerror, connections=len(self))
        self._exhausted = True
        self._loop.remove_reader(self._sock)
        self._again = self._loop.call_later(_EXHAUSTED_S, self._listen)

    def _take(self, sock: socket.socket, origin: bytes) -> None:
        full = "full" if len(self) >= self._most else ""
        if self._most_of_one and self._from[origin] >= self._most_of_one:
            full = "address_full"
        if full:
            self._counts[full] += 1
            sock.close()
            return
        self._from[origin] += 1
        task = self._loop.create_task(self._begin(sock, origin))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _begin(self, sock: socket.socket, origin: bytes) -> None:
        here = True

        def lost() -> None:
            nonlocal here
            if here:
                here = False
                self._from[origin] -= 1
                if not self._from[origin]:
                    del self._from[origin]

        tls = self._tls()
        times = {"ssl_handshake_timeout": _HANDSHAKE_S, "ssl_shutdown_timeout": _GOODBYE_S} if tls else {}
        try:
            sock.setblocking(False)
            await self._loop.connect_accepted_socket(lambda: self._connection(lost), sock, ssl=tls, **times)
        except (OSError, TimeoutError):  # of a client that hung up, spoke no TLS, or said nothing
            self._counts["broken"] += 1
            lost()
        except BaseException:
            lost()
            raise
        else:
            self._counts["taken"] += 1


def connections_tally() -> Tally:
    """The counter of what became of connections."""
    return Tally(families.CONNECTIONS)


def _origin(host: str) -> bytes:
    address = bytes(16)
    with suppress(OSError, ValueError):
        address = pack(host.partition("%")[0], 0)[:16]
    return address if address.startswith(_MAPPED) else address[:8]
