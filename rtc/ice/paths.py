"""A path of ICE, and what an agent knows of one; and the credentials of both sides, which a restart changes. Pure."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from rtc.ice.allowance import Allowance
from rtc.ice.state import GenerationState, PathState

__all__ = ["Generation", "Known", "Path"]


class Path(NamedTuple):
    """A path: the edge's name and the client's 18 byte address."""

    edge: bytes
    address: bytes


class Known:
    """The state of a path."""

    __slots__ = ("allowance", "consent", "heard", "moved", "probe", "probed", "proved")

    def __init__(self, now: float) -> None:
        self.allowance = Allowance()
        self.heard = now  # the last check, answer, or media that moved
        self.consent = now
        self.proved = False
        self.moved = False  # media came by it before it was proved: the client sends there, and wants to hear there
        self.probe = b""  # the transaction of our check under way
        self.probed = float("-inf")

    def renew(self, now: float) -> None:
        self.heard = self.consent = now

    def export(self, path: Path, now: float) -> PathState:
        return PathState(
            edge=path.edge,
            address=path.address,
            received=self.allowance.received,
            sent=self.allowance.sent,
            heard_s=now - self.heard,
            consent_s=now - self.consent,
            proved=self.proved,
            moved=self.moved,
            probe=self.probe,
            probed_s=None if self.probed == float("-inf") else now - self.probed,
        )

    @classmethod
    def take_up(cls, state: PathState, now: float) -> Known:
        known = cls(now)
        known.allowance.received, known.allowance.sent = state.received, state.sent
        known.heard, known.consent = now - state.heard_s, now - state.consent_s
        known.proved, known.moved, known.probe = state.proved, state.moved, state.probe
        known.probed = float("-inf") if state.probed_s is None else now - state.probed_s
        return known


class Generation:
    """The credentials of both sides, until ICE restarts."""

    def __init__(self, ufrag: str, remote: tuple[str, str], password: str = "") -> None:
        self.ufrag = ufrag
        self.password = password or secrets.token_urlsafe(18).replace("-", "+").replace("_", "/")
        self.key = self.password.encode()
        self.remote = remote
        self.remote_username = f"{remote[0]}:{ufrag}".encode()
        self.remote_key = remote[1].encode()

    def export(self) -> GenerationState:
        return GenerationState(self.ufrag, self.password, self.remote)

    @classmethod
    def take_up(cls, state: GenerationState) -> Generation:
        return cls(state.ufrag, state.remote, state.password)
