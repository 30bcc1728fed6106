"""The names of an edge's processes on a link: ``edge~instance/process``, as their ZeroMQ identities.

The edge's name is the operator's and should be the only one of its kind. The instance tells two edges that have one
name by mistake from one that was started again: it is the same for every start of an edge in one place.

A transceiver that hands calls over is ``@id.generation``. As long as it passes on what a process of an edge sends for
such a call, it has a link in that process's name as well: ``edge~instance/process@id.generation``. So the other
transceiver knows by which edge each client comes.
"""

from __future__ import annotations

__all__ = [
    "edge_of",
    "identity",
    "instance_of",
    "is_transceiver",
    "number_of",
    "seen_through",
    "through",
    "transceiver_name",
]

_AT = b"@"  # no edge's name has it


def identity(edge: str, instance: str, process: str) -> bytes:
    """The identity of a process of the edge."""
    return f"{edge}~{instance}/{process}".encode() if instance else f"{edge}/{process}".encode()


def edge_of(peer: bytes) -> bytes:
    """The name of the peer's edge."""
    return peer.partition(b"/")[0].partition(b"~")[0]


def instance_of(peer: bytes) -> bytes:
    """The instance of the peer's edge, among those that have its name; empty where it does not tell."""
    return peer.partition(b"/")[0].partition(b"~")[2]


def transceiver_name(number: int, generation: str) -> bytes:
    """The identity of a transceiver on a link to another one; ``generation`` tells processes with one id apart."""
    return f"@{number}.{generation}".encode()


def through(peer: bytes, transceiver: bytes) -> bytes:
    """The identity under which the transceiver of that name passes on what ``peer`` says."""
    return peer + transceiver


def is_transceiver(peer: bytes) -> bool:
    """Whether the peer is a transceiver that speaks for itself."""
    return peer.startswith(_AT)


def number_of(peer: bytes) -> int | None:
    """The id of a transceiver that speaks for itself; None for anybody else."""
    number = peer.removeprefix(_AT).partition(b".")[0]
    return int(number) if is_transceiver(peer) and number.isdigit() else None


def seen_through(peer: bytes) -> bytes:
    """The process that a transceiver passes this on for; empty where nobody is between."""
    process, at, _ = peer.partition(_AT)
    return process if at else b""
