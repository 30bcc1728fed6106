"""XDP on the interface towards transceivers of other hosts, where that is not the clients' own: the same program, which
takes what they answer (``bpf/between.c``)."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from edge.xdp import kernel
from edge.xdp.pins import Pins

__all__ = ["Inner"]

_PIN = "inner-link"
_NATIVE, _GENERIC = 1 << 2, 1 << 1


class Inner:
    """The program ``prog_fd`` on ``interface``, and pinned with ``pins``: what one process attached, the next goes on
    with."""

    def __init__(self, prog_fd: int, interface: str, pins: Pins | None, log: Any) -> None:
        self._prog_fd, self._interface, self._pins, self._log = prog_fd, interface, pins, log
        self._link = pins.get(_PIN) if pins is not None else None
        self._failed = False

    def look(self) -> bool:
        """Attaches the program where it is not. Returns whether it is there."""
        try:
            wanted = socket.if_nametoindex(self._interface)
            if self._link is not None and int(kernel.facts(self._link)["ifindex"]) != wanted:
                self.detach()
            if self._link is None:
                self._link = self._attached(wanted)
                if self._pins is not None:
                    self._pins.put(_PIN, self._link)
            if kernel.facts(self._link)["prog_id"] != kernel.facts(self._prog_fd)["prog_id"]:
                kernel.replace_xdp(self._link, self._prog_fd, None)
        except OSError as e:
            if not self._failed:
                self._log.warning("no express path to other hosts", why=f"{self._interface}: {e.strerror or e}")
            self._failed = True
            return False
        self._failed = False
        return True

    def detach(self) -> None:
        """Takes it off. Nothing happens where it is not there."""
        if self._link is not None:
            os.close(self._link)
            self._link = None
            if self._pins is not None:
                with contextlib.suppress(OSError):
                    self._pins.drop(_PIN)

    def _attached(self, interface: int) -> int:
        try:
            return kernel.attach_xdp(self._prog_fd, interface, _NATIVE)
        except OSError:
            return kernel.attach_xdp(self._prog_fd, interface, _GENERIC)
