"""WebSockets at ``/v1/realtime``: a session over one (``?model=``), or a call's events beside its caller
(``?call_id=``, the sideband). Text goes both ways unchanged; only the transceiver knows what it means.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container

from aiohttp import WSCloseCode, WSMsgType, web

from edge.links.events import Events
from edge.links.feed import Ending, Feed, error_event
from edge.links.transceivers import RequestRefused, Unavailable
from edge.signaling.access import KEY_PROTOCOL, Access, Caller, offered_protocols
from edge.signaling.bodies import check_intent, model_name, query
from edge.signaling.calls import Calls, call_not_found
from edge.signaling.cutting import MAX_BYTES, TooLargeError, parts
from edge.signaling.errors import Refusal, refused
from edge.signaling.ledger import Ledger
from edge.signaling.pace import Pace
from edge.signaling.placing import Placing
from edge.tracing import traced
from runtime.tracing.tracer import OFF, Tracer
from wire import messages

__all__ = ["MAX_SIDEBAND_BYTES", "PATH", "Sockets"]

PATH = "/v1/realtime"
MAX_SIDEBAND_BYTES = 256 << 10
_PROTOCOLS = ("realtime", "openai-beta.realtime-v1")
_MOST_SOCKETS = 4096
_PING_EVERY_S = 20.0
_CLOSE_S = 2.0  # how long a client may take to answer a close frame
_MAX_REASON_BYTES = 123  # RFC 6455 section 5.5


class Sockets:
    """The handler, and every socket that is open."""

    def __init__(
        self,
        events: Events,
        access: Access,
        placing: Placing,
        ledger: Ledger,
        calls: Calls,
        origins: tuple[str, ...],
        most: int = _MOST_SOCKETS,
        tracer: Tracer = OFF,
    ) -> None:
        self._events = events
        self._access = access
        self._placing = placing
        self._ledger = ledger
        self._calls = calls
        self._origins = origins
        self._most = most
        self._tracer = tracer
        self._open = 0

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/realtime``: 101, or a refusal like any other."""
        caller = self._access.caller(request)
        _check_upgrade(request, self._origins)
        if self._open >= self._most:
            raise Refusal(503, f"{self._most} WebSockets are open here", code="full", retry_after_s=2)
        self._open += 1
        try:
            check_intent(request)
            call = query(request, "call_id")
            if call is not None:
                return await self._sideband(request, caller, call)
            return await self._session(request, caller)
        finally:
            self._open -= 1

    async def _session(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        feed = Feed()
        with traced(self._tracer, request, 101) as span:  # until the session is there
            session = caller.session({})
            agent = caller.model(model_name(query(request, "model") or ""))
            wanted = messages.Open(
                agent=agent,
                session=session or None,
                owner=caller.key,
                holder=caller.token_id,
                locked=caller.locked,
                **span.headers,
            )
            _, opened = await self._placing.place(
                caller, lambda transceiver: self._events.open(transceiver, feed, wanted), agent, socket=True, span=span
            )
        ufrag = opened.ufrag
        try:
            return await self._talk(request, ufrag, feed, MAX_BYTES)
        finally:
            self._ledger.ended(ufrag)
            await self._events.leave(ufrag, feed, end=True)

    async def _sideband(self, request: web.Request, caller: Caller, call: str) -> web.StreamResponse:
        if caller.token is not None:
            raise call_not_found()  # who may not look is not told what is there
        transceiver, ufrag = self._calls.find(call, caller)
        feed = Feed()
        try:
            await self._events.watch(transceiver, ufrag, feed, caller.key)
        except RequestRefused as e:
            raise refused(e) from None
        except Unavailable as e:
            raise self._calls.unavailable(ufrag, e) from None
        try:
            return await self._talk(request, ufrag, feed, MAX_SIDEBAND_BYTES)
        finally:
            await self._events.leave(ufrag, feed, end=False)

    async def _talk(self, request: web.Request, ufrag: str, feed: Feed, most_bytes: int) -> web.StreamResponse:
        # Compression would have one client's bytes take the time of all.
        socket = web.WebSocketResponse(
            protocols=_PROTOCOLS, heartbeat=_PING_EVERY_S, max_msg_size=most_bytes + 1, compress=False, timeout=_CLOSE_S
        )
        try:
            await socket.prepare(request)
        except ConnectionError:
            return socket  # it is gone already
        tasks = [
            asyncio.create_task(self._read(socket, ufrag, feed)),
            asyncio.create_task(_write(socket, feed)),
            asyncio.create_task(feed.was_cut.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        ending = feed.ending or Ending(WSCloseCode.OK, "")
        reason = ending.reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore").encode()
        await socket.close(code=ending.code, message=reason, drain=False)
        if feed.was_cut.is_set() and request.transport is not None:
            request.transport.abort()  # what it still does not read would be kept for it
        return socket

    async def _read(self, socket: web.WebSocketResponse, ufrag: str, feed: Feed) -> None:
        pace = Pace()
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                try:
                    for part in parts(message.data):
                        await self._events.send(ufrag, part)
                except TooLargeError as e:
                    feed.put(_not_an_event(str(e), e.event_id))
                except Unavailable as e:
                    feed.end(Ending(WSCloseCode.INTERNAL_ERROR, str(e)))
                    return
            elif message.type == WSMsgType.BINARY:
                feed.put(_not_an_event("Events are JSON in text frames; this frame was binary."))
            await asyncio.sleep(pace.wait_s(len(message.data or ""), time.monotonic()))


async def _write(socket: web.WebSocketResponse, feed: Feed) -> None:
    while (event := await feed.get()) is not None:
        await socket.send_str(event)


def _check_upgrade(request: web.Request, origins: Container[str]) -> None:
    """Raises Refusal for a request that aiohttp would refuse in other words, or log with the key in it."""
    if request.headers.get("Upgrade", "").lower().strip() != "websocket":
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
        raise Refusal(426, "This is a WebSocket: ask for an upgrade.", code="upgrade_required", headers=headers)
    offered = offered_protocols(request)
    if offered and not any(protocol in _PROTOCOLS for protocol in offered):
        message = f"Offer the subprotocol {_PROTOCOLS[0]} beside {KEY_PROTOCOL}<key>."
        raise Refusal(400, message, code="invalid_subprotocol", param="Sec-WebSocket-Protocol")
    origin = request.headers.get("Origin")
    if origin and "*" not in origins and origin not in origins:
        raise Refusal(403, "Pages of this origin may not connect here.", code="origin_not_allowed", param="origin")
    for name in ("Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key"):
        if not request.headers.get(name, "").isascii():
            # Of all that they may be, aiohttp fails at this alone.
            raise Refusal(400, "A header of the handshake is ASCII.", code="invalid_handshake", param=name)


def _not_an_event(message: str, event_id: str | None = None) -> str:
    return error_event("invalid_request_error", "invalid_event", message, event_id)
