"""The edge's announcements to the other edges, and what it hears of theirs, over ZeroMQ.

Signaling does this, because it names the edges in its answers. An edge whose signaling is away is not named elsewhere,
though its workers carry the calls that they have.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Never

import zmq
import zmq.asyncio

from edge.peers import Peer, Peers
from runtime import logs
from runtime.families import edge as families
from runtime.metrics import Gauges, Tally
from wire import link
from wire.announcements import HEARTBEAT, Heartbeat, encode, read
from wire.frames import WireError
from wire.keys import ClusterKeys

__all__ = ["BEAT_S", "Announcing"]

BEAT_S = 0.25
_BIND_AGAIN_S = 1.0
_AT_ONCE = 64  # heartbeats, until others have their turn


class Announcing:
    """Tells the other edges that this one is there, at ``endpoint``, and ``peers`` which of them are well. What the
    workers tell at the endpoint ``gathered_at`` is passed on to them. An empty endpoint tells nobody."""

    def __init__(self, peers: Peers, endpoint: str, keys: ClusterKeys, gathered_at: str = "") -> None:
        self._peers = peers
        self._endpoint, self._gathered_at = endpoint, gathered_at
        self._keys = keys
        self._context = zmq.asyncio.Context()
        self._ears: Any = link.subscriber(self._context, HEARTBEAT)
        self._connected: set[str] = set()
        self.heard = Tally(families.ANNOUNCEMENTS)
        self.well = Gauges(
            families.EDGE_WELL,
            lambda: {(peer.name,): float(peers.is_well(peer.name, time.monotonic())) for peer in peers.known},
        )
        self.draining = Gauges(
            families.EDGE_DRAINING,
            lambda: {(name,): float(draining) for name, _, draining in peers.heard_of(time.monotonic())},
        )
        self.age = Gauges(
            families.EDGE_AGE,
            lambda: {(name,): age_s for name, age_s, _ in peers.heard_of(time.monotonic())},
        )

    def know(self, edges: Iterable[Peer]) -> None:
        """Makes these the edges that there are, and listens to them from now on."""
        self._peers.know(edges)
        endpoints = {peer.endpoint for peer in self._peers.known}
        for gone in self._connected - endpoints:
            self._ears.disconnect(gone)
        for new in endpoints - self._connected:
            link.hear(self._ears, new, self._keys)
        self._connected = endpoints

    async def listen(self) -> Never:
        """Takes what the others announce."""
        count = 0
        while True:
            message = await self._ears.recv()
            count += 1
            if count % _AT_ONCE == 0:
                await asyncio.sleep(0)  # what is there already is received without a pause
            try:
                said = read(message)
            except WireError:
                self.heard["refused"] += 1
                continue
            if isinstance(said, Heartbeat):
                known = self._peers.heard(said.name, time.monotonic(), draining=said.draining)
                self.heard["taken" if known else "unknown_edge"] += 1

    async def announce(self) -> None:
        """Tells the others, four times a second, that this edge is there, and what its workers tell."""
        if not self._endpoint:
            if self._peers.known:
                logs.get().warning(
                    "no other edge names this one: edge.edges has no row with its edge.name, and edge.announce is empty"
                )
            return
        voice = await self._bound(link.publisher, self._endpoint)
        ears = await self._bound(link.collector, self._gathered_at) if self._gathered_at else None
        try:
            await asyncio.gather(self._beat(voice), *([] if ears is None else [self._pass_on(ears, voice)]))
        finally:
            voice.close(linger=0)
            if ears is not None:
                ears.close(linger=0)

    async def _beat(self, voice: Any) -> Never:
        while True:
            await voice.send(encode(Heartbeat(self._peers.name, self._peers.draining)))
            await asyncio.sleep(BEAT_S)

    async def _pass_on(self, ears: Any, voice: Any) -> Never:
        while True:
            await voice.send(await ears.recv())
            await asyncio.sleep(0)

    async def _bound(self, make: Callable[[Any, str, ClusterKeys], Any], endpoint: str) -> Any:
        """The socket, as soon as the endpoint is free: a predecessor of this process may still have it."""
        complained = False
        while True:
            try:
                return make(self._context, endpoint, self._keys)
            except zmq.ZMQError as e:
                if not complained:
                    complained = True
                    why = f"{endpoint}: {e.strerror}"
                    logs.get().warning("the other edges are not told that this one is there", why=why)
                await asyncio.sleep(_BIND_AGAIN_S)

    def close(self) -> None:
        """Ends all of it."""
        self._ears.close(linger=0)
        self._context.destroy(linger=0)
