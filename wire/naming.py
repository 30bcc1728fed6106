"""What the processes of an edge are called on a link: ``edge~instance/process``, as their ZeroMQ identities.

The edge's name is the operator's and should be the only one of its kind. The instance tells two edges that have one
name by mistake from one that was started again: it is the same for every start of an edge in one place.
"""

from __future__ import annotations

__all__ = ["edge_of", "identity", "instance_of"]


def identity(edge: str, instance: str, process: str) -> bytes:
    """Of a process of the edge."""
    return f"{edge}~{instance}/{process}".encode() if instance else f"{edge}/{process}".encode()


def edge_of(peer: bytes) -> bytes:
    """The edge's name."""
    return peer.partition(b"/")[0].partition(b"~")[0]


def instance_of(peer: bytes) -> bytes:
    """Which of those that have this name, empty where it does not say."""
    return peer.partition(b"/")[0].partition(b"~")[2]
