"""Time-limited credentials of a TURN server, which knows the same secret (draft-uberti-behave-turn-rest-00).

They are good until the second that the username begins with. The server makes the same password of the username, and
needs to be told of nobody. Pure.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass

__all__ = ["Credentials", "mint"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A username and its password, as TURN's long-term mechanism has them (RFC 8489 section 9.2)."""

    username: str
    password: str


def mint(secret: str, label: str, now: float, ttl_s: int) -> Credentials:
    """Credentials that are good for ``ttl_s`` seconds from ``now`` (seconds since 1970). A server's quotas count by
    ``label``, which may be seen in its log."""
    username = f"{int(now) + ttl_s}:{label}"
    # SHA-1 because servers know nothing else (section 2.2); as a MAC it is not broken.
    mac = hmac.digest(secret.encode(), username.encode(), "sha1")
    return Credentials(username, base64.b64encode(mac).decode())
