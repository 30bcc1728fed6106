"""The edges that may speak to this transceiver: of two with one name, the first is accepted for as long as it lives.

Two edges with one name would both be told what is for either, and calls of both would be lost. An edge lives while one
of its processes is connected: one that was killed and started elsewhere takes its name over at once.
"""

from __future__ import annotations

from collections.abc import Callable

from runtime import logs
from wire.naming import edge_of, instance_of

__all__ = ["Edges"]

_ASK_AGAIN_S = 1.0
_MOST = 4096  # names of processes


class Edges:
    """The edges by name. ``connected(peer)`` says whether somebody of that name is there now."""

    def __init__(self, connected: Callable[[bytes], bool]) -> None:
        self._connected = connected
        self._instances: dict[bytes, bytes] = {}
        self._known: dict[bytes, None] = {}  # in the order in which they came
        self._refused_until: dict[bytes, float] = {}
        self._complained: set[bytes] = set()

    def admits(self, peer: bytes, now: float) -> bool:
        """Whether to heed what ``peer`` says; ``now`` is in seconds, monotonic."""
        if peer in self._known:
            return True
        edge, instance = edge_of(peer), instance_of(peer)
        if self._instances.get(edge, instance) != instance:
            if now < self._refused_until.get(edge, now):
                return False
            others = [known for known in self._known if edge_of(known) == edge]
            if any(self._connected(other) for other in others):
                self._refused_until[edge] = now + _ASK_AGAIN_S
                self._complain(edge, peer, others[0])
                return False
            for other in others:
                del self._known[other]
        self._instances[edge] = instance
        self._known[peer] = None
        if len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        return True

    def _complain(self, edge: bytes, peer: bytes, other: bytes) -> None:
        who = peer.partition(b"/")[0]
        if who not in self._complained:
            if len(self._complained) >= _MOST:
                self._complained.clear()
            self._complained.add(who)
            logs.get().error(
                "two edges have one name: the second is refused while the first is connected",
                edge=edge.decode(errors="replace"),
                refused=who.decode(errors="replace"),
                first=other.partition(b"/")[0].decode(errors="replace"),
            )
