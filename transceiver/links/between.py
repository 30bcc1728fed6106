"""The express path to edges of other hosts: one UDP socket, to which their XDP brings media past their workers.

Each datagram has a head before it that names its flow (``wire/encapsulation.py``); the same head takes what is answered
back to the client, by the edge's address that it came from. Workers tell the tickets (``path.ticket``), and edges ask
twice a second whether the way can be used. When an edge has not asked for ``GONE_S``, media goes to it by its workers;
what comes by a ticket is taken as long as its call is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Never, Protocol

from rtc.ice.lite import Path
from runtime import logs
from runtime.config import Transceiver
from runtime.datagrams import Datagram
from transceiver.counters import RX_EXPRESS
from transceiver.links.expressway import Batch, Clock, Expressway
from wire import address
from wire.encapsulation import HEAD_BYTES, MOST_BYTES, Head, Probe, Probes, digest, port_of
from wire.keys import ClusterKeys
from wire.messages import Ticket
from wire.naming import edge_of

__all__ = ["GONE_S", "Between"]

GONE_S = 3.0
_LOOK_S = 0.25
_OPEN_S = 2.0
_BUFFER_BYTES = 512 << 10
_MOST_EDGES = 64
_MOST_TICKETS = 1 << 16
_PROBE_KIND = bytes(4)  # the number of no flow


class Routes(Protocol):
    """What it must know of the routing (``routing.py``)."""

    @property
    def all_wait(self) -> bool:
        """Whether the media of every call waits for the clock."""

    def on_express(self, edge: bytes, batch: Batch, came_s: Iterable[float]) -> None:
        """Takes media of an edge's clients, which came at these times."""

    def holds(self, path: Path) -> bool:
        """Whether a transport has that path."""

    def tell_anew(self, path: Path) -> None:
        """Says ``path.up`` once more, because it says something new."""


@dataclass(slots=True)
class _Edge:
    host: bytes  # 16 bytes
    clock_ns: int
    heard: float
    open: bool


@dataclass(slots=True)
class _Flow:
    path: Path
    head: bytes
    port: bytes  # of the edge, from which alone its media comes
    edge: bytes  # as probes call it
    where: bytes = b""  # 18 bytes; none until something came by it


class Between:
    """The express path of a transceiver to edges of other hosts. It does nothing unless ``config`` says so. ``clock``
    is that by which calls hear."""

    def __init__(self, config: Transceiver, keys: Callable[[], ClusterKeys], routing: Routes, clock: Clock) -> None:
        self._number, self._routing, self._keys, self._clock = config.id, routing, keys, clock
        self._address = config.endpoint.address if config.express == "between" else None
        self._edges: dict[bytes, _Edge] = {}
        self._by_head: dict[bytes, _Flow] = {}
        self._by_path: dict[Path, _Flow] = {}
        self._digests: dict[bytes, bytes] = {}
        self._way: Expressway | None = None
        self._socket: socket.socket
        self._made: tuple[bytes, Probes] | None = None

    @property
    def dropped(self) -> int:
        """The number of datagrams for which the kernel had no room."""
        return self._way.dropped if self._way is not None else 0

    def number(self, path: Path) -> int | None:
        """The number of the path's flow in its ticket, 0 where it has none; None where its edge has no way here."""
        edge = self._edges.get(self._digest(path.edge)) if self._way is not None else None
        if edge is None or not edge.open:
            return None
        flow = self._by_path.get(path)
        return int.from_bytes(flow.head[4:8], "big") if flow is not None else 0

    def ticket(self, worker: bytes, ticket: Ticket) -> None:
        """Takes the ticket of a path that is here, and tells that it is known."""
        path = Path(edge_of(worker), ticket.address)
        if self._way is None or not self._routing.holds(path) or len(self._by_head) >= _MOST_TICKETS:
            return
        former = self._by_path.get(path)
        head, port = Head(ticket.number, ticket.ticket).dump(), port_of(ticket.number).to_bytes(2, "big")
        flow = _Flow(path, head, port, self._digest(path.edge))
        if former is not None:
            self._by_head.pop(former.head, None)
        self._by_head[flow.head] = self._by_path[path] = flow
        self._routing.tell_anew(path)

    def send(self, path: Path, datagram: bytes) -> bool:
        """Queues media for the client at ``path``. Returns False where it has to go by the worker."""
        flow = self._by_path.get(path)
        if flow is None or not flow.where or self._way is None or len(datagram) > MOST_BYTES:
            return False
        edge = self._edges.get(flow.edge)
        if edge is None or not edge.open:
            return False
        self._way.send(flow.where, flow.head + datagram)
        return True

    async def run(self) -> Never:
        """Takes media until it is cancelled."""
        if self._address is None:
            await asyncio.Event().wait()
        assert self._address is not None
        try:
            sock = self._socket = await self._open(*self._address.pair)
            self._way = Expressway(b"", sock, sock.dup(), self._take, self._clock)
            while True:
                await asyncio.sleep(_LOOK_S)
                self._way.look_by_clock(self._routing.all_wait)
                self._look(time.monotonic())
        finally:
            if self._way is not None:
                self._way.close()
                self._way = None

    async def _open(self, host: str, port: int) -> socket.socket:
        """The socket. One that a process which is about to end still has is waited for."""
        until = time.monotonic() + _OPEN_S
        mapped = host if ":" in host else f"::ffff:{host}" if host not in ("0.0.0.0", "*") else "::"
        while True:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
                sock.bind((mapped, port))
                return sock
            except OSError as e:
                sock.close()
                if e.errno != errno.EADDRINUSE or time.monotonic() > until:
                    logs.get().warning("no express path to edges of other hosts", why=f"UDP {host}:{port}: {e}")
                    await asyncio.Event().wait()
            await asyncio.sleep(_LOOK_S)

    def _take(self, _: bytes, batch: Batch, came_s: Sequence[float]) -> None:
        by_edge: dict[bytes, tuple[list[Datagram], list[float]]] = {}
        no_media = 0
        for (sender, datagram), now in zip(batch, came_s, strict=False):
            flow = self._by_head.get(datagram[:HEAD_BYTES])
            edge = self._edges.get(flow.edge) if flow is not None else None
            # Who has overheard a ticket, and writes the edge's address, is not to have answers sent to another port.
            if flow is None or edge is None or sender[:16] != edge.host or sender[16:] != flow.port:
                no_media += 1
                RX_EXPRESS["refused"] += not self._heard(sender, datagram)
                continue
            flow.where = sender
            media, times = by_edge.setdefault(flow.path.edge, ([], []))
            media.append((flow.path.address, datagram[HEAD_BYTES:]))
            times.append(now)
        RX_EXPRESS["taken"] -= no_media  # as which all were counted
        for name, (media, times) in by_edge.items():
            self._routing.on_express(name, media, times)

    def _heard(self, sender: bytes, datagram: bytes) -> bool:
        """Takes a probe. Returns False where it is none of an edge of this cluster, or an old one."""
        if datagram[4:8] != _PROBE_KIND:
            return False
        probe = self._probes.read(datagram, sender)
        if probe is None or probe.transceiver != self._number or probe.kind == "answer":
            return False
        edge = self._edges.get(probe.edge)
        if edge is None and len(self._edges) >= _MOST_EDGES and not self._forget_one():
            return False
        if edge is not None and probe.clock_ns <= edge.clock_ns:
            return False
        if probe.kind == "ask":
            self._edges[probe.edge] = _Edge(sender[:16], probe.clock_ns, time.monotonic(), probe.open)
            answer = Probe("answer", probe.open, self._number, probe.edge, probe.clock_ns)
            with contextlib.suppress(OSError):
                self._socket.sendto(self._probes.dump(answer, sender), address.to_ipv6(sender))
        return True

    def _forget_one(self) -> bool:
        """Makes room for another edge, if there is one that has been silent."""
        name = min(self._edges, key=lambda name: self._edges[name].heard)
        if self._edges[name].open:
            return False
        del self._edges[name]
        return True

    def _look(self, now: float) -> None:
        for edge in self._edges.values():
            # XDP may go on without the supervisor, who asks: what comes is taken all the same.
            edge.open = edge.open and now - edge.heard <= GONE_S
        for flow in [flow for flow in self._by_path.values() if not self._routing.holds(flow.path)]:
            del self._by_path[flow.path]
            self._by_head.pop(flow.head, None)

    @property
    def _probes(self) -> Probes:
        keys = self._keys()
        if self._made is None or self._made[0] != keys.link:
            self._made = keys.link, Probes(keys)
        return self._made[1]

    def _digest(self, edge: bytes) -> bytes:
        known = self._digests.get(edge)
        if known is None:
            if len(self._digests) >= _MOST_EDGES:
                self._digests.clear()
            known = self._digests[edge] = digest(edge)
        return known
