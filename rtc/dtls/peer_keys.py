"""Bounds on the keys in a peer's certificate. OpenSSL needs tens of milliseconds to check a signature by an odd key,
and nobody else is served in that time; so keys that no client has are refused before they are used.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from OpenSSL import crypto

__all__ = ["may_be_checked"]

_LARGEST_RSA_BITS = 4096
_LARGEST_RSA_EXPONENT = 1 << 32
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
# The object identifier of name constraints (RFC 5280 section 4.2.1.10): names times constraints comparisons.
_NAME_CONSTRAINTS = bytes.fromhex("0603551d1e")


def may_be_checked(certificate: crypto.X509, depth: int) -> bool:
    """Whether signatures of the key in ``certificate`` may be checked; ``depth`` counts from the peer's own certificate
    up."""
    if depth > 0 and _NAME_CONSTRAINTS in crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate):
        return False
    try:
        key = certificate.get_pubkey().to_cryptography_key()
    except Exception:  # whatever OpenSSL and cryptography say to a key that they do not know
        return False
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size <= _LARGEST_RSA_BITS and key.public_numbers().e < _LARGEST_RSA_EXPONENT
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    return isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
