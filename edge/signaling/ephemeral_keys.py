"""Ephemeral keys: a server gives one to a browser in place of its API key.

A key is ``ek_`` and a Fernet token (AES-128-CBC, HMAC-SHA256; compared in constant time), in URL characters without
padding, because a WebSocket carries it in a subprotocol's name. It holds all that it allows, so no edge keeps a list of
keys, and only edges can read the session in it: its instructions stay hidden from those who talk to the agent.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import zlib
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

__all__ = [
    "MAX_SESSION_BYTES",
    "MAX_TOKEN_BYTES",
    "PREFIX",
    "EphemeralKey",
    "EphemeralKeys",
    "ExpiredError",
    "ForgedError",
]

PREFIX = "ek_"
MAX_SESSION_BYTES = 16 << 10
MAX_TOKEN_BYTES = 24 << 10  # of a session that cannot be compressed at all
_MAX_LOCKED_BYTES = 1200
_SHAPE = re.compile(r"ek_[A-Za-z0-9_-]+")


class ForgedError(ValueError):
    """A key that no edge of this cluster made, or that is not whole."""


class ExpiredError(ValueError):
    """A key that has expired."""


@dataclass(frozen=True, slots=True)
class EphemeralKey:
    """What an ephemeral key allows: calls of ``model`` ("" for any) with ``session`` (the Realtime API's session
    configuration), until ``expires_at`` (seconds since 1970), on the account of the API key with id ``key``. Its holder
    may neither see nor replace the parts of the session that ``locked`` names."""

    key: str
    model: str
    session: dict[str, Any]
    expires_at: int
    locked: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))


class EphemeralKeys:
    """The maker and reader of ephemeral keys, with 32 secret bytes."""

    def __init__(self, secret: bytes) -> None:
        self._fernet = Fernet(base64.urlsafe_b64encode(secret))

    def make(self, token: EphemeralKey) -> str:
        """The ephemeral key. Raises ValueError where the session is larger than MAX_SESSION_BYTES as JSON."""
        if len(_json(token.session)) > MAX_SESSION_BYTES or len(_json(token.locked)) > _MAX_LOCKED_BYTES:
            raise ValueError(f"the session is larger than {MAX_SESSION_BYTES} bytes")
        fields = [token.id, token.key, token.model, token.expires_at, token.session, *token.locked]
        return PREFIX + self._fernet.encrypt(zlib.compress(_json(fields), 9)).decode().rstrip("=")

    def open(self, text: str, now: float) -> EphemeralKey:
        """The content of ``text`` at ``now`` (seconds since 1970). Raises ForgedError or ExpiredError."""
        # Base64 decoders pass over what they do not know, and one key would have many spellings.
        if len(text) > MAX_TOKEN_BYTES or not _SHAPE.fullmatch(text):
            raise ForgedError("not an ephemeral key")
        sealed = text.removeprefix(PREFIX)
        try:
            plain = self._fernet.decrypt(sealed + "=" * (-len(sealed) % 4))
        except InvalidToken:
            raise ForgedError("not an ephemeral key of this cluster") from None
        token_id, key, model, expires_at, session, *locked = json.loads(zlib.decompress(plain))
        if now >= expires_at:
            raise ExpiredError("the ephemeral key has expired")
        return EphemeralKey(key, model, session, expires_at, tuple(locked), token_id)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
