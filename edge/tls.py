"""HTTPS for signaling, if the configuration has a certificate."""

from __future__ import annotations

import ssl
from pathlib import Path

from runtime.errors import ConfigError
from wire.keys import Log

__all__ = ["Certificate", "server_context"]


def server_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The context for these PEM files, or None without them. Raises ConfigError."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("edge.tls_certificate and edge.tls_key: set both or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password OpenSSL would ask a terminal for it, and everything would wait.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as e:
        raise ConfigError(f"edge.tls_certificate {certificate} and edge.tls_key {key}: {e}") from None
    return context


class Certificate:
    """The PEM files, followed while a process runs by what is in them. Begins with what they say, which must be good
    (ConfigError); later what is not is one line to ``log``, and the old certificate stays."""

    def __init__(self, certificate: Path | None, key: Path | None, log: Log) -> None:
        self._certificate, self._key, self._log = certificate, key, log
        self._seen = self._content()
        self.context = server_context(certificate, key)

    def refresh(self) -> bool:
        """Looks at the files. True where the next connections get another certificate than the last."""
        seen = self._content()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.context = server_context(self._certificate, self._key)
        except ConfigError as e:
            self._log.warning("TLS certificate not taken, the old one stays", why=str(e))
            return False
        self._log.info("TLS certificate changed")
        return True

    def _content(self) -> tuple[bytes | None, ...]:
        return tuple(_read(path) for path in (self._certificate, self._key) if path is not None)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
