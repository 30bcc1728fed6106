"""Ports of this machine that are free, and whether an edge answers on one."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def ports(count: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[int]:
    """Different ports that are free."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket(socket.AF_INET, kind)) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def run_of_ports(count: int) -> int:
    """The first of ``count`` ports in a row that are free."""
    for first in range(21000, 32000, count):
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise AssertionError("no ports")


def ready(port: int) -> bool:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)):
            return False
        probe.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        return b" 200 " in probe.recv(64)
