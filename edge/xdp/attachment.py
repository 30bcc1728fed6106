"""The attachment of XDP to its interface: when a cable, a driver or a person takes it off, it comes back by itself.

The filter that gives a datagram to the socket of its core comes and goes with XDP. Without XDP the receiving core says
nothing about the flow, and the kernel's own hash spreads flows (``edge/xdp/cpufilter.py``).
"""

from __future__ import annotations

import contextlib
import socket

from structlog.stdlib import BoundLogger

from edge.xdp.cpufilter import attach_cpu_filter, detach_cpu_filter
from edge.xdp.program import SteeringError
from edge.xdp.steering import Steering

__all__ = ["LOOK_EVERY_S", "Attachment"]

LOOK_EVERY_S = 1.0


class Attachment:
    """``steering`` on the interface of that name, for the SO_REUSEPORT group of ``media``; nothing is attached before
    the first ``look``.

    ``mode`` is ``native`` or ``generic`` while it steers, else ``off``, and then ``missing`` says in a word why:
    ``no_interface``, ``other_program`` or ``refused``.
    """

    def __init__(self, steering: Steering, interface: str, media: socket.socket, log: BoundLogger) -> None:
        self._steering = steering
        self._interface = interface
        self._media = media
        self._log = log
        self._held = "off"
        self.mode = "off"
        self.missing = ""

    def look(self) -> None:
        """Attaches the program where it is not; each change is one line in the log. Call this every ``LOOK_EVERY_S``:
        asking the kernel costs two system calls, while news of links can be lost, and does not tell of every way to
        lose a program."""
        if self._steering.steers(self._interface):
            if self.mode == "off":
                self._steers(self._held)
            return
        if self.mode != "off":
            self._log.warning("xdp is off its interface", interface=self._interface)
            self.mode = "off"
        try:
            self._steering.let_go(self._interface)
            mode = self._steering.attach(self._interface)
        except SteeringError as e:
            self._does_not(e.why, str(e))
        except OSError as e:  # of the pins
            with contextlib.suppress(OSError):
                self._steering.detach()
            self._does_not("refused", str(e))
        else:
            self._steers(mode)

    def _steers(self, mode: str) -> None:
        attach_cpu_filter(self._media, self._steering.cpus)
        self._held = self.mode = mode
        self.missing = ""
        self._log.info("xdp attached", interface=self._interface, mode=mode, cores=list(self._steering.cpus))

    def _does_not(self, why: str, line: str) -> None:
        if why == self.missing:
            return
        self.missing = why
        with contextlib.suppress(OSError):  # there was none
            detach_cpu_filter(self._media)
        self._log.warning("no XDP: forged packets reach the workers, and the kernel's hash spreads flows", why=line)
