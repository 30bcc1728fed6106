"""The names of an edge's processes on a link: ``edge~instance/process``, as their ZeroMQ identities.

The edge's name is the operator's and should be the only one of its kind. The instance tells two edges that have one
name by mistake from one that was started again: it is the same for every start of an edge in one place.
"""

from __future__ import annotations

__all__ = ["edge_of", "identity", "instance_of"]


def identity(edge: str, instance: str, process: str) -> bytes:
    """The identity of a process of the edge."""
    return f"{edge}~{instance}/{process}".encode() if instance else f"{edge}/{process}".encode()


def edge_of(peer: bytes) -> bytes:
    """The name of the peer's edge."""
    return peer.partition(b"/")[0].partition(b"~")[0]


def instance_of(peer: bytes) -> bytes:
    """The instance of the peer's edge, among those that have its name; empty where it does not tell."""
    return peer.partition(b"/")[0].partition(b"~")[2]
