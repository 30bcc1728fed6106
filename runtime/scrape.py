"""The answer to scrapes, beside media that must not wait for it: one at a time, each within a second, and in all a
small share of a core's time.

A flood of scrapes waits in a short line, at whose end the kernel refuses. Values are of the moment and are not kept, so
whoever asks too often is answered later.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import formatdate
from urllib.parse import parse_qsl

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from runtime import logs
from runtime.process import step_back

__all__ = ["Page", "Scrapes", "Unavailable"]

Page = Callable[[Mapping[str, str]], bytes]
"""Makes a JSON document of the query's fields, in the thread that answers scrapes. Raises Unavailable."""

_BACKLOG = 8
_PATIENCE_S = 1.0  # with one who asks, from the first byte to the last
_MOST_HEAD_BYTES = 8 << 10
_MOST_FIELDS = 16
_SHARE = 0.1  # of a core, at most


class Unavailable(Exception):
    """The error that a page has nothing good to say now: the answer is 503, with this line."""


class Scrapes:
    """``/metrics`` of ``registry`` at ``host`` and ``port``, and ``pages`` by their paths, from a thread of its own,
    which has taken ``spent_s`` of a core. Raises OSError where the address cannot be had."""

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, pages: Mapping[str, Page] | None = None
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._registry = registry
        self._pages = {path.encode(): page for path, page in (pages or {}).items()}
        self._complained = False
        self.spent_s = 0.0
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def _run(self) -> None:
        step_back()
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # it was gone before we looked, or there are no descriptors
                time.sleep(_PATIENCE_S)
                continue
            began = time.thread_time()
            with connection, suppress(OSError):
                self._answer(connection)
            took_s = time.thread_time() - began
            self.spent_s += took_s
            time.sleep(took_s * (1 / _SHARE - 1))

    def _answer(self, connection: socket.socket) -> None:
        """Answers one scrape. Raises OSError where it is given up."""
        until = time.monotonic() + _PATIENCE_S
        head = b""
        while b"\r\n\r\n" not in head:
            connection.settimeout(max(0.001, until - time.monotonic()))
            piece = connection.recv(_MOST_HEAD_BYTES)
            head += piece
            if not piece or len(head) > _MOST_HEAD_BYTES or time.monotonic() > until:
                return
        method, _, rest = head.partition(b" ")
        path, _, query = rest.partition(b" ")[0].partition(b"?")
        kind = CONTENT_TYPE_PLAIN_0_0_4
        if method not in (b"GET", b"HEAD"):
            status, body = "405 Method Not Allowed", b""
        elif path in self._pages:
            kind = "application/json"
            status, body = self._made(lambda: self._pages[path](_fields(query)))
        elif path not in (b"/", b"/metrics"):
            status, body = "404 Not Found", b""
        else:
            status, body = self._made(lambda: generate_latest(self._registry))
        said = f"HTTP/1.1 {status}\r\nDate: {formatdate(usegmt=True)}\r\nContent-Type: {kind}\r\n"
        connection.settimeout(max(0.001, until - time.monotonic()))
        said += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(said.encode() + (b"" if method == b"HEAD" else body))
        # Closed with anything unread the kernel would reset it, and what was sent with it.
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(_MOST_HEAD_BYTES) and time.monotonic() < until:
            connection.settimeout(max(0.001, until - time.monotonic()))

    def _made(self, make: Callable[[], bytes]) -> tuple[str, bytes]:
        try:
            return "200 OK", make()
        except Unavailable as e:
            return "503 Service Unavailable", json.dumps({"error": str(e)}).encode()
        except Exception:
            if not self._complained:  # the next one would say the same
                self._complained = True
                logs.get().exception("metrics cannot be read")
            return "500 Internal Server Error", b""


def _fields(query: bytes) -> dict[str, str]:
    """The fields of a query; none where it has too many."""
    try:
        return dict(parse_qsl(query.decode(errors="replace"), max_num_fields=_MOST_FIELDS))
    except ValueError:
        return {}
