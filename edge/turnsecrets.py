"""The secret that signaling and a TURN server share: it is the one line of a file."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import ConfigError

__all__ = ["load"]

_LEAST = 16  # characters


def load(path: Path) -> str:
    """The secret in ``path``, the one line of that file. Raises ConfigError."""
    try:
        secret = path.read_text().strip()
    except OSError as e:
        raise ConfigError(f"edge.ice_servers: secret_file {path}: {e.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"edge.ice_servers: secret_file {path}: this is no text") from None
    if len(secret) < _LEAST or not secret.isascii() or not secret.isprintable() or " " in secret:
        why = f"expected one line of at least {_LEAST} characters of ASCII, and no blank"
        raise ConfigError(f"edge.ice_servers: secret_file {path}: {why}")
    return secret
