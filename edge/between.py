"""The edge's side of the express path to transceivers on other hosts: it finds out how each is reached, whether media
would arrive there and answers here, and says so to XDP (``bpf/between.c``).

A way is used when an answer has come to a question that went out as media does, by XDP past the kernel, and came in by
XDP with its checksum whole. It is closed when none has come for ``GONE_S``. What was sent by it meanwhile is let
through until the transceiver is out of the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Never

from edge.directory_file import Listings
from edge.xdp import hops
from edge.xdp.features import takes_redirects
from edge.xdp.inner import Inner
from edge.xdp.probe import frame, redirect, redirector
from edge.xdp.ways import Hop, Ways
from runtime.address import Endpoint
from runtime.config import Edge
from wire import address
from wire.encapsulation import FIRST_PORT, PROBE_BYTES, Probe, Probes, digest
from wire.keys import ClusterKeys

__all__ = ["GONE_S", "Between"]

GONE_S = 3.0
_ASK_EVERY_S, _FIND_EVERY_S = 0.5, 2.0
_MOST_ANSWERS = 256  # at once


@dataclass(slots=True)
class _Peer:
    host: tuple[str, int]
    why: str = "no_route"
    hop: Hop | None = None
    asked_ns: int = 0
    heard: float = -GONE_S
    open: bool = False


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
        self._peers: dict[int, _Peer] = {}
        self._redirectors: dict[int, int] = {}
        self._digest = digest(edge.name.encode())

    async def serve(self) -> Never:
        """Keeps the ways."""
        ways = self._ways_now()
        if ways is not None and self._edge.express != "between":
            for number in ways.open:
                ways.close(number)
        if ways is None or self._edge.express != "between":
            await asyncio.Event().wait()
        assert ways is not None
        sock = self._listening()
        loop, found_at, inner = asyncio.get_running_loop(), -_FIND_EVERY_S, self._inner_now()
        loop.add_reader(sock.fileno(), self._answered, sock, ways)
        open_before = ways.open
        try:
            while True:
                now = time.monotonic()
                there = inner is None or inner.look()
                self._know(ways, open_before, now)
                if there and now - found_at >= _FIND_EVERY_S:
                    found_at = now
                    self._found(
                        ways, await asyncio.to_thread(hops.find, {n: p.host for n, p in self._peers.items()}), sock
                    )
                for number, peer in self._peers.items():
                    self._look(ways, number, peer, there)
                await asyncio.sleep(_ASK_EVERY_S)
        finally:
            loop.remove_reader(sock.fileno())
            sock.close()
            for program in self._redirectors.values():
                os.close(program)

    def gauges(self) -> dict[tuple[str, ...], float]:
        """1 for each transceiver whose way is open, 0 for one that has none, and why."""
        return {(str(n), "" if p.open else p.why): float(p.open) for n, p in list(self._peers.items())}

    def _know(self, ways: Ways, open_before: dict[int, bool], now: float) -> None:
        """Takes note of who is in the directory."""
        self._listings.refresh()
        endpoints = {each.id: Endpoint(each.endpoint).address for each in self._listings.value.transceivers}
        local = self._local()
        wanted = {n: at.pair for n, at in endpoints.items() if at is not None and n not in local}
        for number in [n for n, peer in self._peers.items() if wanted.get(n) != peer.host]:
            del self._peers[number]
            ways.remove(number)
        for number, host in wanted.items():
            if number not in self._peers:
                is_open = open_before.pop(number, False)
                self._peers[number] = _Peer(host, heard=now if is_open else -GONE_S, open=is_open)

    def _found(self, ways: Ways, found: dict[int, hops.Found], sock: socket.socket) -> None:
        """Takes note of next hops, and has the kernel ask for neighbours that it is not sure of."""
        for number, (hop, sure) in found.items():
            peer = self._peers.get(number)
            if peer is None:
                continue
            peer.why = "no_route" if hop is None else "unanswered"
            if hop is not None and (why := self._why_not(hop.interface)):
                hop, peer.why = None, why
            if not sure and peer.why in ("no_route", "unanswered"):
                self._hint(peer, number, sock)
            if hop is not None and hop != peer.hop:
                ways.put(number, hop, open=peer.open)
            peer.hop = hop

    def _why_not(self, interface: int) -> str:
        """The reason, in a word, why XDP cannot send by the interface of that index, or to clients; empty where it
        can."""
        names = self._edge.interface, self._edge.inner_interface or self._edge.interface
        try:
            if socket.if_indextoname(interface) not in names:
                return "other_interface"
            both = interface, socket.if_nametoindex(self._edge.interface)
        except OSError:
            return "no_route"
        return "" if all(map(takes_redirects, both)) else "no_redirect"

    def _hint(self, peer: _Peer, number: int, sock: socket.socket) -> None:
        said = Probe("hint", False, number, self._digest, time.time_ns())
        with contextlib.suppress(OSError):
            host, port = peer.host
            mapped = socket.getaddrinfo(host, port, socket.AF_INET6, socket.SOCK_DGRAM, flags=socket.AI_V4MAPPED)[0][4]
            sock.sendto(Probes(self._keys()).dump(said, bytes(address.SIZE)), mapped)

    def _look(self, ways: Ways, number: int, peer: _Peer, there: bool) -> None:
        """Closes a way that is silent, and asks once more."""
        if peer.open and (peer.hop is None or not there or time.monotonic() - peer.heard > GONE_S):
            peer.open = False
            ways.close(number)
            self._log.warning(
                "media of a transceiver on another host goes by the workers", transceiver=number, why=peer.why
            )
        if peer.hop is None or not there:
            return
        peer.asked_ns = time.time_ns()
        source = peer.hop.source + FIRST_PORT.to_bytes(2, "big")
        said = Probes(self._keys()).dump(Probe("ask", peer.open, number, self._digest, peer.asked_ns), source)
        hop, (host, port) = peer.hop, address.unpack(peer.hop.address)
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
            where = address.pack(*sender[:2])
            peer = next(((n, p) for n, p in self._peers.items() if p.hop is not None and p.hop.address == where), None)
            if peer is not None:
                self._take(ways, *peer, said)

    def _take(self, ways: Ways, number: int, peer: _Peer, said: bytes) -> None:
        assert peer.hop is not None
        probe = Probes(self._keys()).read(said, peer.hop.source + FIRST_PORT.to_bytes(2, "big"))
        if probe is None or probe.kind != "answer" or (probe.transceiver, probe.clock_ns) != (number, peer.asked_ns):
            return
        peer.heard = time.monotonic()
        if not peer.open and ways.put(number, peer.hop, open=True):
            peer.open = True
            self._log.info("media goes to a transceiver on another host past the workers", transceiver=number)

    def _listening(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # The supervisor that follows this one has it too, before this one is gone.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("::", FIRST_PORT))
        return sock
