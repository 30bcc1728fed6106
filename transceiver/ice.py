"""ICE-lite on virtual paths (RFC 8445 section 2.5): no sockets, no candidates, time as an argument.

A path is an edge and the client's address as that edge saw it. The client is always the controlling side and
does the checking; this side answers what is authentic, remembers when each path last proved itself (consent,
RFC 7675) and says where media should go. Nothing without a valid MESSAGE-INTEGRITY changes or is answered.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

from wire import stun

__all__ = ["CONSENT_S", "MAX_PATHS", "IceLite", "Path"]

CONSENT_S = 30.0
MAX_PATHS = 16
PROBE_EVERY_S = 0.05
PROBE_FOR_S = 5.0


class Path(NamedTuple):
    """The edge's name and the client's 18 byte address."""

    edge: bytes
    address: bytes


class _Probe(NamedTuple):
    transaction: bytes
    began: float
    sent: float


class _Generation:
    """The credentials of both sides, until ICE restarts."""

    def __init__(self, ufrag: str, remote: tuple[str, str]) -> None:
        self.ufrag = ufrag
        self.password = secrets.token_urlsafe(18).replace("-", "+").replace("_", "/")
        self.key = self.password.encode()
        self.remote = remote
        self.remote_username = f"{remote[0]}:{ufrag}".encode()
        self.remote_key = remote[1].encode()


class IceLite:
    """The answering side of one session. ``password`` is ours, 144 random bits; ``remote`` are the client's ufrag and
    password."""

    def __init__(self, ufrag: str, now: float, *, remote_ufrag: str = "", remote_password: str = "") -> None:
        self.selected: Path | None = None
        self._generation = _Generation(ufrag, (remote_ufrag, remote_password))
        self._former: _Generation | None = None  # while no check of the present one has come
        self._began = now
        self._ever_proved = False
        self._proved: dict[Path, float] = {}
        self._probes: dict[Path, _Probe] = {}

    @property
    def ufrag(self) -> str:
        """Ours, since the last restart."""
        return self._generation.ufrag

    @property
    def password(self) -> str:
        """Ours, since the last restart."""
        return self._generation.password

    @property
    def remote(self) -> tuple[str, str]:
        """The client's ufrag and password, since the last restart."""
        return self._generation.remote

    @property
    def ufrags(self) -> tuple[str, ...]:
        """All that checks may name now."""
        return tuple(g.ufrag for g in (self._former, self._generation) if g is not None)

    def restart(self, ufrag: str, remote: tuple[str, str]) -> None:
        """New credentials (RFC 8445 section 9). The old ones hold until a check proves that the client has the new, and
        media stays where it is until then: a restart that fails costs nothing."""
        self._former = self._former or self._generation
        self._generation = _Generation(ufrag, remote)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every path that holds consent."""
        return tuple(self._proved)

    @property
    def probing(self) -> tuple[Path, ...]:
        """Every path that a check of ours is under way to."""
        return tuple(self._probes)

    def check(self, message: stun.Message, path: Path, now: float) -> bytes | None:
        """The response to a binding request that arrived on ``path``, or None where it gets none.

        Chromium nominates 50 ms after its first check, so the first valid one is latched at once; a later
        USE-CANDIDATE on another path moves the selection there.
        """
        generation = self._named(message)
        if message.kind != stun.BINDING_REQUEST or not stun.integrity_is_valid(message, generation.key):
            return None
        if path not in self._proved and len(self._proved) >= MAX_PATHS:
            return None
        self._proved[path] = now
        self._probes.pop(path, None)
        self._ever_proved = True
        restarted = self._former is not None and generation is self._generation
        if restarted:
            self._former = None
        if self.selected is None or restarted or stun.USE_CANDIDATE in message.attributes:
            self.selected = path
        return stun.binding_response(message, path.address, generation.key)

    def _named(self, message: stun.Message) -> _Generation:
        """Whose credentials a check uses."""
        former = self._former
        return former if former and stun.server_ufrag(message) == former.ufrag.encode() else self._generation

    def probe(self, path: Path, now: float) -> bytes | None:
        """A check of our own for a path that authentic media came by, or None while the last one is still young.

        A lite agent sends none by itself; a full one answers it like any other (RFC 8445 section 7.3), and its answer
        proves the path up to 2.5 s before its own next check would.
        """
        last = self._probes.get(path)
        if last is None:
            if len(self._probes) >= MAX_PATHS:
                return None
            last = self._probes[path] = _Probe(secrets.token_bytes(12), now, now - PROBE_EVERY_S)
        if now - last.sent < PROBE_EVERY_S:
            return None
        self._probes[path] = last._replace(sent=now)
        known = self._former or self._generation
        return stun.binding_request(known.remote_username, known.remote_key, transaction=last.transaction)

    def proved_by(self, message: stun.Message, path: Path, now: float) -> bool:
        """Whether ``message`` answers the probe of ``path``. The path then holds consent and takes the place of the
        selected one, whose address the caller's NAT has forgotten; should it live, the next check there says so."""
        probe = self._probes.get(path)
        if (
            probe is None
            or message.transaction != probe.transaction
            or not stun.integrity_is_valid(message, (self._former or self._generation).remote_key)
        ):
            return False
        del self._probes[path]
        if self.selected is not None:
            del self._proved[self.selected]
        self._proved[path] = now
        self.selected = path
        return True

    def expire(self, now: float) -> list[Path]:
        """Forgets and returns the paths whose consent is older than 30 s, or whose probe nobody answered for 5 s;
        the selection moves to the freshest."""
        gone = [path for path, proved in self._proved.items() if now - proved > CONSENT_S]
        for path in gone:
            del self._proved[path]
        unanswered = [path for path, probe in self._probes.items() if now - probe.began > PROBE_FOR_S]
        for path in unanswered:
            del self._probes[path]
        gone += unanswered
        if self.selected not in self._proved:
            self.selected = max(self._proved, key=self._proved.__getitem__, default=None)
        return gone

    def ended(self, now: float) -> str:
        """Why the session is over for ICE, or an empty string: call after ``expire``."""
        if self._proved or now - self._began <= CONSENT_S:
            return ""
        return "consent_expired" if self._ever_proved else "never_came"
