"""Signaling's conversation with transceivers: one request, one reply, over a DEALER each."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any

import zmq
import zmq.asyncio

from firsthop import logs
from wire import frames, link
from wire.keys import ClusterKeys

__all__ = ["Refused", "Transceivers", "Unavailable"]

_PATIENCE_S = 2.0


class Unavailable(Exception):
    """The transceiver is away or silent."""


class Refused(Exception):
    """It said no: ``code`` for programs, the text for people, ``param`` the part of the request at fault."""

    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class Transceivers:
    """Every transceiver of the configuration, by id. Links come up and come back by themselves."""

    def __init__(self, peers: Iterable[tuple[int, str]], name: bytes, keys: ClusterKeys) -> None:
        self._context = zmq.asyncio.Context()
        self._sockets: dict[int, Any] = {i: link.dealer(self._context, endpoint, name, keys) for i, endpoint in peers}
        self._requests = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[frames.Control]] = {}
        self._readers = [asyncio.create_task(self._read(socket)) for socket in self._sockets.values()]

    @property
    def ids(self) -> tuple[int, ...]:
        """Of all of them, up or not."""
        return tuple(self._sockets)

    async def ask(self, transceiver: int, type_: str, **fields: Any) -> dict[str, Any]:
        """The reply's fields. Raises Unavailable or Refused."""
        socket = self._sockets.get(transceiver)
        if socket is None:
            raise Unavailable(f"transceiver {transceiver} is not in this edge's configuration")
        request = next(self._requests)
        reply = self._waiting[request] = asyncio.get_running_loop().create_future()
        try:
            await socket.send(frames.control(type_, request=request, **fields), zmq.NOBLOCK)
            message = await asyncio.wait_for(reply, _PATIENCE_S)
        except (zmq.Again, TimeoutError):
            raise Unavailable(f"transceiver {transceiver} does not answer") from None
        finally:
            del self._waiting[request]
        if message.type == "session.refused":
            raise Refused(str(message.fields["code"]), str(message.fields["message"]), message.fields.get("param"))
        answer: dict[str, Any] = message.fields
        return answer

    async def close(self) -> None:
        """Ends all links."""
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._context.destroy(linger=0)

    async def _read(self, socket: Any) -> None:
        complained = False
        while True:
            said = await socket.recv()
            try:
                message = frames.decode(said)
            except frames.WireError as e:
                if not complained:  # the next one would say the same
                    logs.get().error("a transceiver's messages cannot be read", why=str(e))
                complained = True
                continue
            if isinstance(message, frames.Control):
                reply = self._waiting.get(message.fields.pop("request", 0))
                if reply is not None and not reply.done():
                    reply.set_result(message)
