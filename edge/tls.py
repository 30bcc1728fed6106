"""HTTPS for signaling, if the configuration has a certificate."""

from __future__ import annotations

import ssl
from pathlib import Path

from firsthop.errors import ConfigError

__all__ = ["server_context"]


def server_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The context for these PEM files, or None without them. Raises ConfigError."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("edge.tls_certificate and edge.tls_key: set both or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"edge.tls_certificate {certificate} and edge.tls_key {key}: {e}") from None
    return context
