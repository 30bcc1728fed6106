"""The cluster's secrets: one file, the same on every host, readable by firsthop alone.

It holds the keys that seal ufrags (two may live at once while they rotate) and the secret from which both ends
of a ZeroMQ link take their CURVE keys. A TOML file, made by ``firsthop keys new``::

    link = "64 hex digits"
    [[ufrag]]          # the first seals, all of them open
    id = 1
    key = "32 hex digits"
"""

from __future__ import annotations

import hashlib
import secrets
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
import zmq.utils.z85

from wire.ufrag import MAX_KEY_ID

__all__ = ["ClusterKeys", "KeyFileError", "load", "new_file_text"]


class KeyFileError(ValueError):
    """A key file that cannot be used; the text names the file and the field."""


@dataclass(frozen=True, slots=True)
class ClusterKeys:
    """``ufrag`` maps key id to 16 bytes, ``sealing`` is the id that new ufrags get, ``link`` is 32 bytes."""

    ufrag: dict[int, bytes]
    sealing: int
    link: bytes

    def dump(self) -> dict[str, Any]:
        """As JSON can hold it, for a child process's standard input."""
        ufrag = {str(i): key.hex() for i, key in self.ufrag.items()}
        return {"ufrag": ufrag, "sealing": self.sealing, "link": self.link.hex()}

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> ClusterKeys:
        """From what ``dump`` gave."""
        ufrag = {int(i): bytes.fromhex(key) for i, key in fields["ufrag"].items()}
        return cls(ufrag, int(fields["sealing"]), bytes.fromhex(fields["link"]))

    def curve_server(self) -> tuple[bytes, bytes]:
        """(public, secret) of every transceiver's link, Z85.

        The public half never crosses the wire in CurveZMQ (RFC 26): a client must bring it. As it is derived
        from the secret, only holders of the file can connect.
        """
        secret = zmq.utils.z85.encode(hashlib.blake2b(self.link, digest_size=32, person=b"firsthop-link").digest())
        return zmq.curve_public(secret), secret


def new_file_text() -> str:
    """A fresh key file."""
    return f'link = "{secrets.token_hex(32)}"\n\n[[ufrag]]\nid = 1\nkey = "{secrets.token_hex(16)}"\n'


def load(path: Path) -> ClusterKeys:
    """Reads ``path``. Raises KeyFileError with one line that says what to do."""
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as e:
        raise KeyFileError(f"{path}: {e.strerror} (make one with: firsthop keys new > {path})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise KeyFileError(f"{path}: not TOML: {e}") from None
    try:
        link = bytes.fromhex(raw["link"])
        ufrag = {int(entry["id"]): bytes.fromhex(entry["key"]) for entry in raw["ufrag"]}
        sealing = int(raw["ufrag"][0]["id"])
        if len(ufrag) != len(raw["ufrag"]):
            raise KeyFileError(f"{path}: two [[ufrag]] have the same id")
    except KeyFileError:
        raise
    except (KeyError, TypeError, ValueError, IndexError):
        raise KeyFileError(f"{path}: needs link and at least one [[ufrag]] with id and key, in hex") from None
    if len(link) != 32 or any(len(k) != 16 or not 0 <= i <= MAX_KEY_ID for i, k in ufrag.items()):
        raise KeyFileError(f"{path}: link is 32 bytes, a ufrag key 16, its id 0 to {MAX_KEY_ID}")
    return ClusterKeys(ufrag, sealing, link)
