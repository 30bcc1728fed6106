"""Messages to systemd (sd_notify(3)): the state of a service, and descriptors for it to keep."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

__all__ = ["notify"]


def notify(state: str, fds: Sequence[int] = ()) -> None:
    """Sends ``state``, such as ``READY=1`` or ``STOPPING=1``; with ``FDSTORE=1`` it sends descriptors too."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + address[1:] if address[0] == "@" else address)
            socket.send_fds(sock, [state.encode()], fds)
