"""The edge's side of the express path to transceivers on other hosts: it finds out how each is reached, whether media
would arrive there and answers here, and says so to XDP (``bpf/between.c``).

A way is used when an answer has come to a question that went out as media does, by XDP past the kernel, and came in by
XDP with its checksum whole, and closed when none has come for a while (``otherhosts.py``). What was sent by it
meanwhile is let through until the transceiver is out of the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Collection
from typing import Any, Never

from edge.directory_file import Listings
from edge.otherhosts import OtherHosts
from edge.xdp import hops
from edge.xdp.inner import Inner
from edge.xdp.probe import frame, redirect, redirector
from edge.xdp.ways import Hop, Ways
from runtime.address import Endpoint
from runtime.config import Edge
from wire import address
from wire.encapsulation import FIRST_PORT, PROBE_BYTES, Probe, Probes, digest
from wire.keys import ClusterKeys

__all__ = ["Between"]

_ASK_EVERY_S = 0.5
_MOST_ANSWERS = 256  # at once


class Between:
    """The ways of an edge. ``ways()`` are XDP's, None without XDP; ``inner()`` keeps it on their interface, None where
    that is the clients' own; ``local()`` are the transceivers of this host."""

    def __init__(
        self,
        edge: Edge,
        keys: Callable[[], ClusterKeys],
        ways: Callable[[], Ways | None],
        inner: Callable[[], Inner | None],
        local: Callable[[], Collection[int]],
        listings: Listings,
        log: Any,
    ) -> None:
        self._edge, self._keys, self._ways_now, self._inner_now = edge, keys, ways, inner
        self._local, self._listings, self._log = local, listings, log
        self._others = OtherHosts()
        self._redirectors: dict[int, int] = {}
        self._digest = digest(edge.name.encode())
        self._inner_name = edge.inner_interface or edge.interface

    async def serve(self) -> Never:
        """Keeps the ways. Where it cannot, all that an earlier process opened are closed."""
        ways = self._ways_now()
        sock = self._listening() if ways is not None and self._edge.between_hosts else None
        if ways is not None and sock is None:
            for number in ways.open:
                ways.close(number)
        if ways is None or sock is None:
            await asyncio.Event().wait()
        assert ways is not None
        assert sock is not None
        loop, inner = asyncio.get_running_loop(), self._inner_now()
        loop.add_reader(sock.fileno(), self._answered, sock, ways)
        self._others.inherit(ways.open, time.monotonic())
        try:
            while True:
                now = time.monotonic()
                there = inner is None or inner.look()
                self._know(ways, now)
                if there and (hosts := self._others.to_find(now)):
                    self._found(ways, await asyncio.to_thread(hops.find, hosts), sock)
                self._look(ways, there)
                await asyncio.sleep(_ASK_EVERY_S)
        finally:
            loop.remove_reader(sock.fileno())
            sock.close()
            for program in self._redirectors.values():
                os.close(program)

    def gauges(self) -> dict[tuple[str, ...], float]:
        """1 for each transceiver whose way is open, 0 for one that has none, and why."""
        return self._others.gauges()

    def _know(self, ways: Ways, now: float) -> None:
        """Takes note of who is in the directory."""
        self._listings.refresh()
        endpoints = {each.id: Endpoint(each.endpoint).address for each in self._listings.value.transceivers}
        local = self._local()
        wanted = {n: at.pair for n, at in endpoints.items() if at is not None and n not in local}
        for number in self._others.know(wanted, now):
            ways.remove(number)

    def _found(self, ways: Ways, found: dict[int, hops.Found], sock: socket.socket) -> None:
        """Takes note of next hops, and has the kernel ask for neighbours that it is not sure of."""
        for number, (hop, sure, where) in found.items():
            barred = hops.barred(hop.interface, self._edge.interface, self._inner_name) if hop is not None else ""
            if self._others.find(number, hop, barred) and hop is not None:
                ways.put(number, hop, open=self._others.is_open(number))
            if not sure and where and self._others.may_change(number):
                hint = Probe("hint", False, number, self._digest, time.time_ns())
                with contextlib.suppress(OSError):
                    sock.sendto(Probes(self._keys()).dump(hint, bytes(address.SIZE)), address.to_ipv6(where))

    def _look(self, ways: Ways, there: bool) -> None:
        """Closes ways that are silent, and asks once more."""
        for number, why in self._others.closed(time.monotonic(), there):
            ways.close(number)
            self._log.warning("media of a transceiver on another host goes by the workers", transceiver=number, why=why)
        for number, each in self._others.items():
            if each.hop is not None and there:
                each.asked_ns = time.time_ns()
                self._ask(number, each.hop, each.open, each.asked_ns)

    def _ask(self, number: int, hop: Hop, is_open: bool, clock_ns: int) -> None:
        source = hop.source + FIRST_PORT.to_bytes(2, "big")
        said = Probes(self._keys()).dump(Probe("ask", is_open, number, self._digest, clock_ns), source)
        host, port = address.unpack(hop.address)
        ask = frame(hop.to, address.unpack(source)[0], host, port, said, by=hop.by, sport=FIRST_PORT)
        with contextlib.suppress(OSError):
            if hop.interface not in self._redirectors:
                self._redirectors[hop.interface] = redirector(hop.interface)
            redirect(self._redirectors[hop.interface], ask, self._edge.interface)

    def _answered(self, sock: socket.socket, ways: Ways) -> None:
        for _ in range(_MOST_ANSWERS):
            try:
                said, sender = sock.recvfrom(PROBE_BYTES + 1)
            except OSError:
                return
            if (found := self._others.at(address.pack(*sender[:2]))) is not None:
                self._take(ways, *found, said)

    def _take(self, ways: Ways, number: int, hop: Hop, said: bytes) -> None:
        probe = Probes(self._keys()).read(said, hop.source + FIRST_PORT.to_bytes(2, "big"))
        if probe is None or probe.kind != "answer" or probe.transceiver != number:
            return
        if self._others.answered(number, probe.clock_ns, time.monotonic()) and ways.put(number, hop, open=True):
            self._others.opened(number)
            self._log.info("media goes to a transceiver on another host past the workers", transceiver=number)

    def _listening(self) -> socket.socket | None:
        """The socket for answers; None where somebody else has its port."""
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            # The supervisor that follows this one has it too, before this one is gone.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("::", FIRST_PORT))
        except OSError as e:
            sock.close()
            self._log.warning("no express path to other hosts", why=f"UDP port {FIRST_PORT}: {e.strerror or e}")
            return None
        return sock
