"""SRTCP as it is sent (RFC 3711 section 3.4, RFC 7714 section 9). Pure.

libsrtp counts its SRTCP packets from 0, and nothing can set that count: a session that moved would use each index, and
with it each keystream, twice. So the index is ours; and since there is only a packet a second, so is the rest.
"""

from __future__ import annotations

import hmac
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["SrtcpSender"]

_ENCRYPTION, _AUTHENTICATION, _SALT = 3, 4, 5  # labels of the key derivation
_ENCRYPTED = 1 << 31  # the E bit before the index
_LAST_INDEX = (1 << 31) - 1
_TAG_BYTES = 10  # HMAC-SHA1-80
_HEADER = 8  # what of the first packet stays in the clear
_SALT_BYTES = 14
_BLOCK = 16


class _Cipher(Protocol):
    def sealed(self, rtcp: bytes, index: int) -> bytes:
        """SRTCP."""


class SrtcpSender:
    """``master_key`` and ``master_salt`` are as of the handshake: a salt of 14 bytes is AES-CM with HMAC-SHA1-80, one
    of 12 bytes AES-GCM. ``indices`` has the next index of each SSRC (RFC 3711 section 3.2.1); a new one begins at 1, as
    with libsrtp."""

    def __init__(self, master_key: bytes, master_salt: bytes, indices: dict[bytes, int] | None = None) -> None:
        self._cipher: _Cipher = (_Cm if len(master_salt) == _SALT_BYTES else _Gcm)(master_key, master_salt)
        self.indices = dict(indices or {})

    def protect(self, rtcp: bytes) -> bytes:
        """SRTCP from a compound or reduced-size packet of 8 bytes and more. Raises OverflowError after 2^31 of them."""
        ssrc = rtcp[4:8]
        index = self.indices.get(ssrc, 1)
        if index > _LAST_INDEX:
            raise OverflowError("an SSRC has used all SRTCP indices of its key")
        self.indices[ssrc] = index + 1
        return self._cipher.sealed(rtcp, index)


class _Cm:
    """AES in counter mode and HMAC-SHA1-80."""

    def __init__(self, key: bytes, salt: bytes) -> None:
        self._stream = _Keystream(_derived(key, salt, _ENCRYPTION, len(key)))
        self._auth = _derived(key, salt, _AUTHENTICATION, 20)
        self._salt = int.from_bytes(_derived(key, salt, _SALT, _SALT_BYTES), "big") << 16

    def sealed(self, rtcp: bytes, index: int) -> bytes:
        iv = self._salt ^ int.from_bytes(rtcp[4:8], "big") << 64 ^ index << 16
        size = len(rtcp) - _HEADER
        stream = self._stream(iv, size)
        body = (int.from_bytes(rtcp[_HEADER:], "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")
        sealed = rtcp[:_HEADER] + body + (_ENCRYPTED | index).to_bytes(4, "big")
        return sealed + hmac.digest(self._auth, sealed, "sha1")[:_TAG_BYTES]


class _Gcm:
    def __init__(self, key: bytes, salt: bytes) -> None:
        self._aead = AESGCM(_derived(key, salt, _ENCRYPTION, len(key)))
        self._salt = int.from_bytes(_derived(key, salt, _SALT, 12), "big")

    def sealed(self, rtcp: bytes, index: int) -> bytes:
        word = (_ENCRYPTED | index).to_bytes(4, "big")
        iv = self._salt ^ int.from_bytes(rtcp[4:8], "big") << 48 ^ index
        header = rtcp[:_HEADER]
        return header + self._aead.encrypt(iv.to_bytes(12, "big"), rtcp[_HEADER:], header + word) + word


def _derived(key: bytes, salt: bytes, label: int, size: int) -> bytes:
    """A session key (RFC 3711 section 4.3.1), with a key derivation rate of 0; a salt of 12 bytes is filled up (RFC
    7714 section 11)."""
    x = int.from_bytes(salt.ljust(_SALT_BYTES, b"\0"), "big") ^ label << 48
    return _Keystream(key)(x << 16, size)


class _Keystream:
    """AES in counter mode: the keystream of ``size`` bytes from ``iv`` on (RFC 3711 section 4.1.1). It is made of
    blocks by one context, since a context for each packet costs many times as much."""

    def __init__(self, key: bytes) -> None:
        self._block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - of a counter

    def __call__(self, iv: int, size: int) -> bytes:
        counters = b"".join((iv + n).to_bytes(_BLOCK, "big") for n in range(-(-size // _BLOCK)))
        return self._block.update(counters)[:size]
