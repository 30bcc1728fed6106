"""This transceiver's end of a link to another one: a DEALER on the event loop, under a name of its own.

It is made for a hand-over and kept while it is used. To the other transceiver it is as the link of any edge's process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import zmq

from runtime import logs
from transceiver.counters import WIRE_ERRORS
from wire import link
from wire.control import Control, Reader, encode
from wire.frames import Data, WireError, pack_batch
from wire.greeting import Greeting
from wire.keys import ClusterKeys
from wire.messages import Message
from wire.outbox import Outbox

__all__ = ["Dealer"]

_MESSAGES_A_TURN = 64
_LOOK_S = 0.002  # until it is looked again whether the other end has come, or has room
_HELLO = 0  # the number of no other request


class Dealer:
    """The link to ``endpoint``. ``union`` is what may be said to this end; each message is given to ``take``."""

    def __init__(
        self,
        context: zmq.Context[Any],
        endpoint: str,
        name: bytes,
        keys: ClusterKeys,
        union: Any,
        take: Callable[[Data | Control[Any]], None],
    ) -> None:
        self._take = take
        self._name = name
        self._reader = Reader[Message](union)
        self._loop = asyncio.get_running_loop()
        self._socket, self._presence = link.media_dealer(context, endpoint, name, keys)
        self._greeting, self._arrivals = Greeting(), 0
        self._batch: list[tuple[bytes, bytes]] = []
        self._waiting = Outbox[bytes](lambda message: None)
        self._again: asyncio.Handle | None = None
        self._retry: asyncio.Handle | None = None
        self._complained = False
        self._loop.add_reader(self._socket.fileno(), self._drain)

    @property
    def there(self) -> bool:
        """Whether the other end is connected."""
        return bool(self._presence)

    @property
    def version(self) -> int:
        """The version of the wire that both ends speak."""
        return self._greeting.version

    @property
    def mute(self) -> str:
        """Why there is no version that both ends speak, or nothing where none is missing yet."""
        return self._greeting.mute

    async def came(self, within_s: float) -> bool:
        """Waits until the other end is connected. Returns False where it is not within that time."""
        until = self._loop.time() + within_s
        while not self.there:  # no event tells
            if self._loop.time() >= until:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    async def greeted(self, within_s: float) -> bool:
        """Waits until both ends have agreed on a version. Returns False where they have not within that time."""
        until = self._loop.time() + within_s
        if not await self.came(within_s):
            return False
        if self._arrivals != self._presence.arrivals:
            self._arrivals = self._presence.arrivals
            self._greeting.lost()  # another process may be there
        if self._greeting.due:
            self._put(self._greeting.hello(_HELLO))
            self._greeting.due = False
        greeting = self._greeting
        while not (greeting.agreed or greeting.mute) and self._loop.time() < until:  # noqa: ASYNC110  # soon
            await asyncio.sleep(_LOOK_S)
        return greeting.agreed

    def control(self, message: Message, request: int | None = None) -> bool:
        """Sends a control message behind the datagrams so far. Returns False where it is not taken."""
        self._flush()
        return self._put(encode(message, request, self.version))

    def send(self, address: bytes, datagram: bytes) -> None:
        """Passes a client's datagram on; it leaves before the loop waits again."""
        if not self._batch:
            self._loop.call_soon(self._flush)
        self._batch.append((address, datagram))

    def close(self) -> None:
        """Sends what is queued, and ends."""
        self._flush()
        self._loop.remove_reader(self._socket.fileno())
        for handle in (self._again, self._retry):
            if handle is not None:
                handle.cancel()
        self._presence.close()
        self._socket.close(linger=200)

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if self._socket.closed or not batch:
            return
        message, now = pack_batch(batch, version=self.version), time.monotonic()
        if self._waiting or not self._put(message):
            self._waiting.put(message, len(message), now)
            if self._retry is None:
                self._retry = self._loop.call_later(_LOOK_S, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._waiting.flush(lambda message: None if self._put(message) else message, time.monotonic())
        if self._waiting:
            self._retry = self._loop.call_later(_LOOK_S, self._try_again)

    def _put(self, message: bytes) -> bool:
        try:
            self._socket.send(message, zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            # Sending may consume the readiness edge of the descriptor.
            self._look_again()
        return True

    def _look_again(self) -> None:
        if self._again is None and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._again = self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._again = None
        for _ in range(_MESSAGES_A_TURN):
            if self._socket.closed:
                return
            try:
                said = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._read(said)
        self._look_again()

    def _read(self, said: bytes) -> None:
        try:
            message = self._reader.read(said)
            if isinstance(message, Control) and self._greeting.take(message):
                return
            self._take(message)
        except WireError as e:
            WIRE_ERRORS["refused"] += 1
            if not self._complained:
                self._complained = True
                logs.get().error("a transceiver's messages cannot be used", why=str(e), link=self._name.decode())
        except Exception:
            WIRE_ERRORS["failed"] += 1
            logs.get().exception("a transceiver's message failed", link=self._name.decode())
