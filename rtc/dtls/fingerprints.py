"""Fingerprints of certificates (RFC 8122): how SDP writes them, and whether a certificate matches one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes

__all__ = ["DIGEST_BYTES", "is_promised", "of", "well_formed"]

# From the least to the most that we would rather check. MD5 and MD2 must not be used (RFC 8122 section 5).
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha-1": hashes.SHA1(),  # noqa: S303 - a second preimage would be needed, and nobody can make one
    "sha-224": hashes.SHA224(),
    "sha-256": hashes.SHA256(),
    "sha-384": hashes.SHA384(),
    "sha-512": hashes.SHA512(),
}
DIGEST_BYTES = {name: algorithm.digest_size for name, algorithm in _HASHES.items()}
_VALUE = re.compile(r"[0-9A-F]{2}(?::[0-9A-F]{2})*")


def well_formed(line: str) -> tuple[str, str] | None:
    """The algorithm in lower case and the value in upper case of ``sha-256 AB:CD:...``, or None where nothing can be
    checked by it."""
    words = line.split()
    if len(words) != 2:
        return None
    algorithm, value = words[0].lower(), words[1].upper()
    size = DIGEST_BYTES.get(algorithm)
    return (algorithm, value) if size and len(value) == 3 * size - 1 and _VALUE.fullmatch(value) else None


def of(certificate: x509.Certificate, algorithm: str) -> str:
    """The fingerprint of ``certificate``: ``AB:CD:...``."""
    return certificate.fingerprint(_HASHES[algorithm]).hex(":").upper()


def is_promised(certificate: x509.Certificate, fingerprints: Sequence[tuple[str, str]]) -> bool:
    """Whether ``certificate`` has one of the ``fingerprints`` (algorithm, value).

    The strongest hash among them decides, and of its fingerprints one has to match: a peer may have several
    certificates (RFC 8122 section 5.1).
    """
    by_algorithm: dict[str, set[str]] = {}
    for algorithm, value in fingerprints:
        by_algorithm.setdefault(algorithm.lower(), set()).add(value.upper())
    strongest = next((name for name in reversed(_HASHES) if name in by_algorithm), None)
    return strongest is not None and of(certificate, strongest) in by_algorithm[strongest]
