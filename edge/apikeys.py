"""The bearer tokens that may place calls: read from a file, kept as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from firsthop.errors import ConfigError
from wire.exposure import exposure
from wire.keys import Log, file_state

__all__ = ["ApiKeys", "load", "match"]

_ID_BYTES = 9


def load(path: Path) -> list[bytes]:
    """SHA-256 of each bearer token in ``path``: one a line, # begins a comment. Raises ConfigError."""
    try:
        lines = path.read_text().splitlines()
    except OSError as e:
        raise ConfigError(f"edge.api_keys {path}: {e.strerror} (one bearer token a line)") from None
    except UnicodeDecodeError:
        raise ConfigError(f"edge.api_keys {path}: this is no text (one bearer token a line)") from None
    keys = [hashlib.sha256(k.encode()).digest() for line in lines if (k := line.partition("#")[0].strip())]
    if not keys:
        raise ConfigError(f"edge.api_keys {path}: no key in it (one bearer token a line)")
    return keys


def match(token: str, keys: Iterable[bytes]) -> bytes | None:
    """The one of ``keys`` that ``token`` is. All are compared, so that time does not tell which one was near."""
    given = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
    found = [key for key in keys if hmac.compare_digest(given, key)]
    return found[0] if found else None


class ApiKeys:
    """The file at ``path``, followed while a process runs. Begins with what it says, which must be good (ConfigError);
    later a file that is missing or empty is one line to ``log``, and the old tokens stay. One that others can read now
    is a line too, and is used: a token that was taken out of it must not stay good.

    A token's id tells it from others and gives nothing of it away: part of a hash of its hash.
    """

    def __init__(self, path: Path, log: Log) -> None:
        self._path = path
        self._log = log
        self._seen = file_state(path)
        self._use(load(path))

    def _use(self, keys: list[bytes]) -> None:
        self._keys = keys
        self._ids = {hashlib.sha256(key).hexdigest()[: 2 * _ID_BYTES] for key in keys}

    def find(self, token: str) -> str | None:
        """The id of ``token``, or None where it is not in the file."""
        key = match(token, self._keys)
        return None if key is None else hashlib.sha256(key).hexdigest()[: 2 * _ID_BYTES]

    def has(self, key_id: str) -> bool:
        """Whether the token with this id is still in the file."""
        return key_id in self._ids

    def refresh(self) -> bool:
        """Looks at the file, and reads it where it is not as it was at the last look. True when the tokens changed."""
        seen = file_state(self._path)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            keys = load(self._path)
        except ConfigError as e:
            self._log.warning("API keys not taken, the old ones stay", why=str(e))
            return False
        if why := exposure(self._path):
            self._log.warning("the next start will refuse the API keys", why=f"{self._path}: {why}")
        if keys == self._keys:
            return False
        self._use(keys)
        self._log.info("API keys changed", count=len(keys))
        return True
