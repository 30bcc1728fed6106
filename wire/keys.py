"""The cluster's secrets: one file, the same on every host, readable by firsthop alone.

It holds the keys that seal ufrags (two may live at once while they rotate) and the secret from which both ends of a
ZeroMQ link derive their CURVE keys. It is a TOML file, made by ``firsthop keys new``::

    link = "64 hex digits"
    [[ufrag]]          # the first seals, all of them open
    id = 1
    key = "32 hex digits"
    made = 2026-01-31T12:00:00Z

Every process follows the file (``runtime/keyfile.py``); ``wire/rotation.py`` is how its keys change.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zmq
import zmq.utils.z85
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wire.ufrag import MAX_KEY_ID

__all__ = [
    "ClusterKeys",
    "KeyFileError",
    "file_text",
    "load",
    "new_file_text",
    "parse",
    "read_text",
]


class KeyFileError(ValueError):
    """A key file that cannot be used; the text names the file and the field."""


@dataclass(frozen=True, slots=True)
class ClusterKeys:
    """``ufrag`` maps key id to 16 bytes, ``sealing`` is the id that new ufrags get, ``link`` is 32 bytes."""

    ufrag: dict[int, bytes]
    sealing: int
    link: bytes

    def dump(self) -> dict[str, Any]:
        """The keys in a form that JSON can hold, for a child process's standard input."""
        ufrag = {str(i): key.hex() for i, key in self.ufrag.items()}
        return {"ufrag": ufrag, "sealing": self.sealing, "link": self.link.hex()}

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> ClusterKeys:
        """The keys in what ``dump`` gave."""
        ufrag = {int(i): bytes.fromhex(key) for i, key in fields["ufrag"].items()}
        return cls(ufrag, int(fields["sealing"]), bytes.fromhex(fields["link"]))

    def curve_server(self) -> tuple[bytes, bytes]:
        """(public, secret) in Z85 of every transceiver's link.

        The public half never crosses the wire in CurveZMQ (RFC 26): a client must bring it. As it is derived
        from the secret, only holders of the file can connect.
        """
        secret = zmq.utils.z85.encode(hashlib.blake2b(self.link, digest_size=32, person=b"firsthop-link").digest())
        return zmq.curve_public(secret), secret

    def shared(self) -> ClusterKeys:
        """The keys that other clusters are given, so that their edges know this one's ufrags and reach its edges: the
        ufrag keys, and in place of the link secret one that is derived from it (HKDF, RFC 5869) and does not give it
        away."""
        link = HKDF(SHA256(), length=32, salt=None, info=b"firsthop backbone 1").derive(self.link)
        return replace(self, link=link)

    def client_secrets(self) -> bytes:
        """32 bytes that seal ephemeral API keys (HKDF, RFC 5869). They are the same at every edge, while ufrag keys
        rotate."""
        return HKDF(SHA256(), length=32, salt=None, info=b"firsthop client secrets 1").derive(self.link)


def file_text(link: bytes, ufrag: Iterable[tuple[int, bytes, datetime | None]]) -> str:
    """The text of a key file: (id, key, when it was made) of each ufrag key, the one that seals first."""
    text = f'link = "{link.hex()}"\n'
    for key_id, key, made in ufrag:
        text += f'\n[[ufrag]]\nid = {key_id}\nkey = "{key.hex()}"\n'
        if made is not None:
            text += f"made = {made.astimezone(UTC).isoformat().replace('+00:00', 'Z')}\n"
    return text


def new_file_text() -> str:
    """The text of a fresh key file."""
    made = datetime.now(UTC).replace(microsecond=0)
    return file_text(secrets.token_bytes(32), [(1, secrets.token_bytes(16), made)])


def load(path: Path) -> ClusterKeys:
    """Reads ``path``. Raises KeyFileError with one line that says what to do."""
    return parse(read_text(path), path)


def read_text(path: Path) -> str:
    """The text of a key file. Raises KeyFileError."""
    try:
        return path.read_text()
    except OSError as e:
        todo = ""
        if isinstance(e, FileNotFoundError):
            todo = f" (make one with: firsthop keys new -o {path})"
        elif isinstance(e, PermissionError) and os.geteuid() == 0:
            todo = " (a transceiver has given up root's rights by now: run it as the user whose file this is)"
        raise KeyFileError(f"{path}: {e.strerror}{todo}") from None
    except UnicodeDecodeError as e:
        raise KeyFileError(f"{path}: not TOML: {e}") from None


def parse(text: str, path: Path) -> ClusterKeys:
    """The keys in the file at ``path``, given its text. Raises KeyFileError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise KeyFileError(f"{path}: not TOML: {e}") from None
    try:
        link = bytes.fromhex(raw["link"])
        ufrag = {int(entry["id"]): bytes.fromhex(entry["key"]) for entry in raw["ufrag"]}
        sealing = int(raw["ufrag"][0]["id"])
        if len(ufrag) != len(raw["ufrag"]):
            raise KeyFileError(f"{path}: two [[ufrag]] have the same id")
    except KeyFileError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise KeyFileError(f"{path}: needs link and at least one [[ufrag]] with id and key, in hex") from None
    if len(link) != 32 or any(len(k) != 16 or not 0 <= i <= MAX_KEY_ID for i, k in ufrag.items()):
        raise KeyFileError(f"{path}: link is 32 bytes, a ufrag key 16, its id 0 to {MAX_KEY_ID}")
    return ClusterKeys(ufrag, sealing, link)
