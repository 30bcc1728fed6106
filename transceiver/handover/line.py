"""The links to one transceiver that takes calls over: one for what is asked, and one in the name of each process of an
edge whose messages are passed on (``wire.naming``). They are made on demand and closed when they are not used.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import zmq

from transceiver.links.dealer import Dealer
from wire.control import Control
from wire.frames import Data
from wire.keys import ClusterKeys
from wire.messages import Message, Neighbour, Refused, Request, ToSource, ToWorker, reply_type
from wire.naming import through
from wire.versions import MOVES

__all__ = ["Gone", "Line", "NotTaken"]

IDLE_S = 30.0
_LOOK_S = 0.005

Reply = TypeVar("Reply", bound=Message)
# What the other transceiver says to a process of an edge, through this one.
PassBack = Callable[[bytes, Data | Control[Any]], None]


class NotTaken(Exception):
    """The error that the other transceiver refuses: ``code`` is the reason, for programs."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


class Gone(NotTaken):
    """The error that it is not there, or does not answer."""

    def __init__(self, why: str) -> None:
        super().__init__("gone", why)


class Line:
    """The links to ``to``, under the name ``name``. What comes back for a process of an edge is given to ``back``."""

    def __init__(
        self, context: zmq.Context[Any], to: Neighbour, name: bytes, keys: ClusterKeys, back: PassBack
    ) -> None:
        self.id, self.endpoint = to.id, to.endpoint
        self._context, self._name, self._keys, self._back = context, name, keys, back
        self._asked: dict[int, tuple[type[Message], asyncio.Future[Message]]] = {}
        self._numbers = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._used = self._loop.time()
        self._own = Dealer(context, to.endpoint, name, keys, ToSource, self._replied)
        self._relays: dict[bytes, Dealer] = {}

    @property
    def there(self) -> bool:
        """Whether the other transceiver is connected."""
        return self._own.there

    def idle(self, now: float) -> bool:
        """Whether it was not used for half a minute; ``now`` is by the loop's clock."""
        return not self._asked and now - self._used > IDLE_S

    async def ready(self, processes: Iterable[bytes], within_s: float) -> None:
        """Waits until there is a way for what those processes of edges say. Raises Gone."""
        self._used = self._loop.time()
        until = self._used + within_s
        relays = [self._relay(process) for process in processes]
        if not await self._own.greeted(within_s):
            why = f"cannot be spoken with: {self._own.mute}" if self._own.mute else "does not answer"
            raise Gone(f"transceiver {self.id} {why}")
        if self._own.version < MOVES:
            raise Gone(f"transceiver {self.id} is of an older release")
        for relay in relays:
            if not await relay.came(max(0.0, until - self._loop.time())):
                raise Gone(f"transceiver {self.id} takes no link in an edge's name")

    async def ask(self, request: Request[Reply], within_s: float) -> Reply:
        """Asks the other transceiver. Raises NotTaken where it refuses, and Gone where it is away or silent."""
        self._used = self._loop.time()
        number, until = next(self._numbers), self._used + within_s
        future: asyncio.Future[Any] = self._loop.create_future()
        expected: type[Message] = reply_type(type(request))  # type: ignore[arg-type]  # a type of a type variable
        self._asked[number] = expected, future
        try:
            if not self._own.control(request, number):
                raise Gone(f"transceiver {self.id} is away")
            while not future.done():
                if not self._own.there or self._loop.time() >= until:
                    raise Gone(f"transceiver {self.id} does not answer")
                await asyncio.wait([future], timeout=_LOOK_S)
        finally:
            del self._asked[number]
        reply = future.result()
        if isinstance(reply, Refused):
            raise NotTaken(reply.code, reply.message)
        taken: Reply = reply
        return taken

    def tell(self, message: Message) -> bool:
        """Says something to the other transceiver. Returns False where that is not there."""
        return self._own.there and self._own.control(message)

    def pass_on(self, process: bytes, address: bytes, datagram: bytes) -> None:
        """Passes a client's datagram on that ``process`` sent."""
        self._used = self._loop.time()
        self._relay(process).send(address, datagram)

    def pass_on_control(self, process: bytes, message: Message) -> None:
        """Passes a message of that process on."""
        self._used = self._loop.time()
        self._relay(process).control(message)

    def close(self) -> None:
        """Ends all links."""
        for link in (self._own, *self._relays.values()):
            link.close()

    def _relay(self, process: bytes) -> Dealer:
        relay = self._relays.get(process)
        if relay is None:
            name = through(process, self._name)
            relay = Dealer(
                self._context, self.endpoint, name, self._keys, ToWorker, lambda said: self._came_back(process, said)
            )
            self._relays[process] = relay
        return relay

    def _came_back(self, process: bytes, said: Data | Control[Any]) -> None:
        self._used = self._loop.time()
        self._back(process, said)

    def _replied(self, said: Data | Control[Any]) -> None:
        if not isinstance(said, Control) or said.request is None:
            return
        expected, future = self._asked.get(said.request, (Message, None))
        if future is not None and not future.done() and isinstance(said.message, expected | Refused):
            future.set_result(said.message)
