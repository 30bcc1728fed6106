"""The store that a host's configuration names."""

from __future__ import annotations

import ssl
from pathlib import Path

from runtime.config import Directory
from runtime.directory.store import MemoryStore, Store
from runtime.errors import ConfigError

__all__ = ["check", "open_store"]


def check(config: Directory) -> None:
    """Looks at what can be wrong with it before anything runs. Raises ConfigError."""
    if config.password_file is not None:
        try:
            config.password_file.read_text()
        except (OSError, ValueError) as e:
            why = e.strerror if isinstance(e, OSError) else e
            raise ConfigError(f"directory.password_file {config.password_file}: {why}") from None
    if config.ca_file is not None:
        if not config.redis.startswith("rediss:"):
            raise ConfigError("directory.ca_file: only a Redis at rediss:// shows a certificate")
        try:
            ssl.create_default_context(cafile=config.ca_file)
        except OSError as e:  # ssl.SSLError is one
            raise ConfigError(f"directory.ca_file {config.ca_file}: {e.strerror or e}") from None


def open_store(config: Directory) -> Store:
    """The store, to which nothing is connected yet: Redis, or, where none is named, the memory of this process."""
    if not config.redis:
        return MemoryStore(config.ttl_s)
    from runtime.directory.redis_store import RedisStore  # here, because its client takes a while to import

    host = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return RedisStore(
        config.redis,
        prefix=config.prefix,
        ttl_s=config.ttl_s,
        password_file=config.password_file,
        ca_file=config.ca_file,
        host=host,
    )
