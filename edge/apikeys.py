"""The bearer tokens that may place calls: read from a file, kept as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from firsthop.errors import ConfigError

__all__ = ["load", "match"]


def load(path: Path) -> list[bytes]:
    """SHA-256 of each bearer token in ``path``: one a line, # begins a comment. Raises ConfigError."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"edge.api_keys {path}: {e} (one bearer token a line)") from None
    keys = [hashlib.sha256(k.encode()).digest() for line in lines if (k := line.partition("#")[0].strip())]
    if not keys:
        raise ConfigError(f"edge.api_keys {path}: no key in it (one bearer token a line)")
    return keys


def match(token: str, keys: Iterable[bytes]) -> bool:
    """Whether ``token`` is one of ``keys``. All are compared, so that time does not tell which one was near."""
    given = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
    return any([hmac.compare_digest(given, key) for key in keys])
