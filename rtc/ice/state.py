"""An ICE-lite agent as a value. Times are ages in seconds: another host's clock counts from elsewhere. Pure."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["GenerationState", "IceState", "PathState"]


class GenerationState(Struct, frozen=True):
    """The credentials of both sides: ours, and the client's ufrag and password."""

    ufrag: str
    password: str
    remote: tuple[str, str]


class PathState(Struct, frozen=True):
    """A path and its state: the bytes that came by it and went there, whether it has proved itself, and the transaction
    of a check of ours that is under way."""

    edge: bytes
    address: bytes
    received: int
    sent: int
    heard_s: float
    consent_s: float
    proved: bool
    moved: bool
    probe: bytes
    probed_s: float | None


class IceState(Struct, frozen=True):
    """The state of the agent. ``selected`` and ``nominated`` are indices of ``paths``; ``seen`` has transactions and
    where each came by first, as edge and address, the newest last."""

    generation: GenerationState
    former: GenerationState | None
    paths: list[PathState]
    selected: int | None
    nominated: int | None
    seen: list[tuple[bytes, bytes, bytes]]
    consent_limit_s: float
    began_s: float
    consent_s: float | None
    tie_breaker: int
