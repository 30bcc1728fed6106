"""HTTPS for signaling, if the configuration has a certificate."""

from __future__ import annotations

import ssl
from pathlib import Path

from runtime.errors import ConfigError
from runtime.followed import Followed
from runtime.logs import Log

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


class Certificate(Followed[ssl.SSLContext | None]):
    """The PEM files, which must be good at first (ConfigError)."""

    def __init__(self, certificate: Path | None, key: Path | None, log: Log) -> None:
        super().__init__("TLS certificate", server_context, certificate, key, log=log)

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context for the next connection; None for plain HTTP."""
        return self.value

    def refresh(self) -> bool:
        """See Followed."""
        if not super().refresh():
            return False
        self._log.info("TLS certificate changed")
        return True
