"""The API keys that may place calls: they are read from a file, kept as hashes, and compared in constant time.

One a line, and behind it, if not those of the configuration, the models (agents) that it may use:
``token models=parrot,offline``. A # at the beginning of a line or after a blank begins a comment.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from runtime.errors import ConfigError
from runtime.followed import Followed
from runtime.logs import Log

__all__ = ["ANY_MODEL", "ApiKeys", "load", "match", "tokens"]

ANY_MODEL = "*"
_ID_BYTES = 9
_COMMENT = re.compile(r"(?:^|\s)#.*")
_MODELS = re.compile(r"\s+models=(\S*)$")
_NAME = re.compile(r"[!-+\--~]{1,128}")

Models = tuple[str, ...]


def load(path: Path) -> dict[bytes, Models]:
    """SHA-256 of each bearer token in ``path``, with the models listed behind it, () where none are. Raises
    ConfigError."""
    keys: dict[bytes, Models] = {}
    for i, token, models in _entries(path):
        key = hashlib.sha256(token.encode()).digest()
        if keys.setdefault(key, models) != models:
            raise ConfigError(f"edge.api_keys {path}: line {i}: this key stands above with other models")
    if not keys:
        raise ConfigError(f"edge.api_keys {path}: no key in it (one bearer token a line)")
    return keys


def tokens(path: Path) -> list[str]:
    """The bearer tokens in ``path``, for a command on the edge's host. Raises ConfigError."""
    return list(dict.fromkeys(token for _, token, _ in _entries(path)))


def _entries(path: Path) -> Iterator[tuple[int, str, Models]]:
    """Each line's number, bearer token and models. Raises ConfigError."""
    try:
        lines = path.read_text().splitlines()
    except OSError as e:
        raise ConfigError(f"edge.api_keys {path}: {e.strerror} (one bearer token a line)") from None
    except UnicodeDecodeError:
        raise ConfigError(f"edge.api_keys {path}: this is no text (one bearer token a line)") from None
    for i, line in enumerate(lines, 1):
        entry = _COMMENT.sub("", line).strip()
        if not entry:
            continue
        listed = _MODELS.search(entry)
        models = tuple(listed[1].split(",")) if listed else ()
        if not all(_NAME.fullmatch(name) for name in models):
            raise ConfigError(f"edge.api_keys {path}: line {i}: models= is names with commas between them, or *")
        yield i, entry[: listed.start()] if listed else entry, models


def match(token: str, keys: Iterable[bytes]) -> bytes | None:
    """The entry of ``keys`` that matches ``token``. All are compared, so that the time it takes says nothing about
    which came near."""
    given = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
    found = [key for key in keys if hmac.compare_digest(given, key)]
    return found[0] if found else None


class ApiKeys(Followed[dict[bytes, Models]]):
    """The bearer tokens in the file at ``path`` and their models. The file must be good at first (ConfigError).

    A token's id tells it from others and gives nothing of it away: part of a hash of its hash.
    """

    def __init__(self, path: Path, log: Log) -> None:
        super().__init__("API keys", load, path, log=log, secret=True)
        self._index()

    def find(self, token: str) -> str | None:
        """The id of ``token``, or None where it is not in the file."""
        key = match(token, self.value)
        return None if key is None else _id(key)

    def has(self, key_id: str) -> bool:
        """Whether the token with this id is still in the file."""
        return key_id in self._models

    def models(self, key_id: str) -> Models:
        """The models that the file lists for the token with this id; () where it lists none."""
        return self._models.get(key_id, ())

    def refresh(self) -> bool:
        """See Followed."""
        if not super().refresh():
            return False
        self._index()
        self._log.info("API keys changed", count=len(self.value))
        return True

    def _index(self) -> None:
        self._models = {_id(key): models for key, models in self.value.items()}


def _id(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[: 2 * _ID_BYTES]
