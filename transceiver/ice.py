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


class Path(NamedTuple):
    """The edge's name and the client's 18 byte address."""

    edge: bytes
    address: bytes


class IceLite:
    """The answering side of one session. ``password`` is ours, 144 random bits."""

    def __init__(self, ufrag: str, now: float) -> None:
        self.ufrag = ufrag
        self.password = secrets.token_urlsafe(18).replace("-", "+").replace("_", "/")
        self.selected: Path | None = None
        self._key = self.password.encode()
        self._began = now
        self._ever_proved = False
        self._proved: dict[Path, float] = {}

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every path that holds consent."""
        return tuple(self._proved)

    def check(self, message: stun.Message, path: Path, now: float) -> bytes | None:
        """The response to a binding request that arrived on ``path``, or None where it gets none.

        Chromium nominates 50 ms after its first check, so the first valid one is latched at once; a later
        USE-CANDIDATE on another path moves the selection there.
        """
        if message.kind != stun.BINDING_REQUEST or not stun.integrity_is_valid(message, self._key):
            return None
        if path not in self._proved and len(self._proved) >= MAX_PATHS:
            return None
        self._proved[path] = now
        self._ever_proved = True
        if self.selected is None or stun.USE_CANDIDATE in message.attributes:
            self.selected = path
        return stun.binding_response(message, path.address, self._key)

    def expire(self, now: float) -> list[Path]:
        """Forgets and returns the paths whose consent is older than 30 s; the selection moves to the freshest."""
        gone = [path for path, proved in self._proved.items() if now - proved > CONSENT_S]
        for path in gone:
            del self._proved[path]
        if self.selected not in self._proved:
            self.selected = max(self._proved, key=self._proved.__getitem__, default=None)
        return gone

    def ended(self, now: float) -> str:
        """Why the session is over for ICE, or an empty string: call after ``expire``."""
        if self._proved or now - self._began <= CONSENT_S:
            return ""
        return "consent_expired" if self._ever_proved else "never_came"
