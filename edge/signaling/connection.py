"""One HTTP connection: aiohttp's, with bounds on what a client may leave half-done.

aiohttp bounds each header and not all of them together, and waits for ever for a client that does not read; and it
refuses what is not HTTP in plain text, with a traceback in the log. This class uses these private names of aiohttp:
``_request_count``, ``_messages``, ``_max_msg_queue_size``, ``_upgraded`` and ``_ErrInfo``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from edge.signaling.ephemeral_keys import MAX_TOKEN_BYTES
from edge.signaling.errors import Refusal
from runtime import logs

__all__ = ["MAX_HEAD_BYTES", "Connection"]

MAX_HEAD_BYTES = MAX_TOKEN_BYTES + (8 << 10)  # all headers of a request
_MAX_LINE_BYTES = 4096
_MAX_HEADERS = 64
_MAX_WAITING = 4  # requests that came before the last one was answered
_IDLE_S = 15.0  # for a request's headers, from the connection or the last response on
_LINGER_S = 3.0  # for what is still sent of a body that was refused
_STALL_S = 30.0  # in which a client reads nothing of what is there for it
_TOO_LARGE = LineTooLong(b"", MAX_HEAD_BYTES)


class Connection(web.RequestHandler):
    """The protocol of one connection. ``lost()`` is called once it is over."""

    __slots__ = ("_body", "_head_bytes", "_lost", "_refused", "_stall", "_whole_transport")

    def __init__(self, server: web.Server, lost: Callable[[], None]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=_IDLE_S,
            lingering_time=_LINGER_S,
            max_line_size=_MAX_LINE_BYTES,
            max_headers=_MAX_HEADERS,
            max_field_size=MAX_HEAD_BYTES,
            auto_decompress=False,  # a body is read as it is: edge.signaling.bodies
        )
        self._max_msg_queue_size = _MAX_WAITING
        self._msg_queue_resume_size = _MAX_WAITING // 2
        self._lost = lost
        self._body: StreamReader = EMPTY_PAYLOAD
        self._head_bytes = 0
        self._refused = False
        self._stall: asyncio.TimerHandle | None = None
        self._whole_transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._whole_transport = transport
        transport.set_write_buffer_limits(0)  # so that any byte that is not read is known of
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by asyncio."""
        if self._stall is not None:
            self._stall.cancel()
        self._whole_transport = None
        super().connection_lost(exc)
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio. It ends a connection whose headers have no end, or were too large when they came
        at once."""
        if self._refused:
            return
        in_head = not self._upgraded and self._body.is_eof()
        requests = self._request_count
        super().data_received(data)
        if new := self._request_count - requests:
            self._head_bytes = 0
            self._body = self._messages[-1][1]
            for i in range(-new, 0):
                if _head_bytes(self._messages[i][0]) > MAX_HEAD_BYTES:
                    self._messages[i] = (_ErrInfo(431, _TOO_LARGE, ""), EMPTY_PAYLOAD)
        elif in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and self.transport is not None:
                self._refused = True
                self.transport.write(_as_bytes(_too_large()))
                # Closed with bytes unread, the kernel would throw the answer away.
                asyncio.get_running_loop().call_later(_LINGER_S, self.force_close)

    def pause_writing(self) -> None:
        """Called by asyncio: the client does not read."""
        super().pause_writing()
        if self._whole_transport is not None:
            self._stall = asyncio.get_running_loop().call_later(_STALL_S, self._whole_transport.abort)

    def resume_writing(self) -> None:
        """Called by asyncio."""
        if self._stall is not None:
            self._stall.cancel()
        super().resume_writing()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Called by aiohttp, which refuses an unknown Expect (RFC 9110 section 10.1.1) before the application
        is asked."""
        if isinstance(resp, web.HTTPExpectationFailed):
            resp = _unexpected().response()
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what is not a request with an error like any other, and writes no line in the log."""
        if isinstance(exc, ConnectionError):
            raise exc  # it hung up, and aiohttp knows what to do
        if not request.headers.get("Expect", "").isascii():  # aiohttp fails to repeat it
            refusal = _unexpected()
        elif status >= 500:
            logs.get().error("request failed", path=request.path, exc_info=exc)
            refusal = Refusal(status, "this is our fault and has been logged")
        elif isinstance(exc, LineTooLong):
            refusal = _too_large()
        else:
            why = (message or "").strip().partition("\n")[0].rstrip(":")[:200]
            refusal = Refusal(status, f"This is no HTTP request: {why}", code="invalid_request")
        response = refusal.response()
        response.force_close()
        return response


def _head_bytes(message: object) -> int:
    return sum(len(name) + len(value) + 4 for name, value in getattr(message, "raw_headers", ()))


def _unexpected() -> Refusal:
    return Refusal(417, "Expect has 100-continue or nothing", param="expect")


def _too_large() -> Refusal:
    message = f"a line of more than {_MAX_LINE_BYTES} bytes, or headers of more than {MAX_HEAD_BYTES}"
    return Refusal(431, message, code="headers_too_large", param="headers")


def _as_bytes(refusal: Refusal) -> bytes:
    body = json.dumps(refusal.body).encode()
    head = f"HTTP/1.1 {refusal.status} Refused\r\nContent-Type: application/json; charset=utf-8\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
