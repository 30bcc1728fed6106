"""The DTLS 1.2 record layer after the handshake (RFC 6347 section 4.1): AEAD records of epoch 1, both ways. Pure.

OpenSSL does the handshake and is then let go. Its sequence numbers cannot be read or set, and a session that moves
needs just that: the keys, the next number of ours, and the numbers of the peer's that have come.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from msgspec import Struct

from rtc.dtls.replay import ReplayWindow

__all__ = [
    "ALERT",
    "APPLICATION_DATA",
    "HANDSHAKE",
    "HEADER_BYTES",
    "MOST_CONTENT",
    "Header",
    "Keys",
    "RecordLayer",
    "RecordState",
    "derived",
    "headers",
]

ALERT, HANDSHAKE, APPLICATION_DATA = 21, 22, 23  # content types
HEADER_BYTES = 13
MOST_CONTENT = 1500  # bytes: more is no SCTP packet of anybody's
_VERSION = b"\xfe\xfd"
_EPOCH = 1
_WINDOW = 64
_TAG = 16
_NUMBER_BYTES = 8  # epoch and sequence number


class Header(NamedTuple):
    """The header of a record, and the record's place in its datagram, from ``start`` to ``end``."""

    kind: int
    epoch: int
    sequence: int
    start: int
    end: int


def headers(datagram: bytes) -> Iterator[Header]:
    """The header of each record in a datagram; a record that is cut off, or of another version than 1.2, ends them."""
    at = 0
    while len(datagram) - at >= HEADER_BYTES and datagram[at + 1 : at + 3] == _VERSION:
        end = at + HEADER_BYTES + (datagram[at + 11] << 8 | datagram[at + 12])
        if end > len(datagram):
            return
        number = int.from_bytes(datagram[at + 3 : at + 11], "big")
        yield Header(datagram[at], number >> 48, number & 0xFFFF_FFFF_FFFF, at, end)
        at = end


class Keys(Struct, frozen=True, array_like=True):
    """The keys of one direction: a write key and its implicit nonce, of 4 bytes for AES-GCM and 12 for
    ChaCha20-Poly1305."""

    key: bytes
    iv: bytes


class RecordState(Struct, frozen=True):
    """A record layer as a value. ``sequence`` and ``nonce`` are those of the next record that is sealed."""

    ours: Keys
    theirs: Keys
    sequence: int
    nonce: int
    top: int
    seen: int


# By the end of OpenSSL's name of the suite: hash of the PRF, bytes of the key and of the implicit nonce
# (RFC 5288, RFC 5289, RFC 7905).
_SUITES = {
    "AES128-GCM-SHA256": ("sha256", 16, 4),
    "AES256-GCM-SHA384": ("sha384", 32, 4),
    "CHACHA20-POLY1305": ("sha256", 32, 12),
}


def derived(suite: str, master_secret: bytes, client_random: bytes, server_random: bytes) -> tuple[Keys, Keys]:
    """The client's and the server's write keys (RFC 5246 section 6.3); ``suite`` is as OpenSSL names it. Raises
    ValueError for one that is not spoken here."""
    found = next((sizes for name, sizes in _SUITES.items() if suite.endswith(name)), None)
    if found is None:
        raise ValueError(f"no records of {suite} are read here")
    digest, key, iv = found
    block = _expanded(master_secret, b"key expansion" + server_random + client_random, 2 * (key + iv), digest)
    at = 2 * key
    return Keys(block[:key], block[at : at + iv]), Keys(block[key:at], block[at + iv :])


def _expanded(secret: bytes, seed: bytes, size: int, digest: str) -> bytes:
    """The function P_hash (RFC 5246 section 5)."""
    made, a = b"", seed
    while len(made) < size:
        a = hmac.digest(secret, a, digest)
        made += hmac.digest(secret, a + seed, digest)
    return made[:size]


class RecordLayer:
    """A record layer that seals and opens records. ``sequence`` is that of the next record that is sealed; the
    handshake has used some. ``nonce`` is its explicit nonce for AES-GCM: OpenSSL begins anywhere and counts on from
    there, so no two are the same."""

    __slots__ = (
        "_explicit",
        "_iv",
        "_keys",
        "_nonce",
        "_open",
        "_peer_iv",
        "_peer_nonce",
        "_seal",
        "_sequence",
        "_window",
    )

    def __init__(self, ours: Keys, theirs: Keys, *, sequence: int = 0, nonce: int = 0) -> None:
        self._keys = ours, theirs
        self._explicit = _NUMBER_BYTES if len(ours.iv) == 4 else 0
        cipher = AESGCM if self._explicit else ChaCha20Poly1305
        self._seal, self._open = cipher(ours.key).encrypt, cipher(theirs.key).decrypt
        self._iv, self._peer_iv = ours.iv, int.from_bytes(theirs.iv, "big")
        self._sequence, self._nonce = sequence, nonce
        self._window = ReplayWindow(_WINDOW)

    def seal(self, kind: int, content: bytes) -> bytes:
        """A sealed record."""
        number = (_EPOCH << 48 | self._sequence).to_bytes(_NUMBER_BYTES, "big")
        self._sequence += 1
        start = b"%c%b%b" % (kind, _VERSION, number)
        if self._explicit:
            explicit = self._nonce.to_bytes(_NUMBER_BYTES, "big")
            self._nonce = (self._nonce + 1) & 0xFFFF_FFFF_FFFF_FFFF
            nonce = self._iv + explicit
        else:
            explicit = b""
            nonce = (int.from_bytes(self._iv, "big") ^ int.from_bytes(number, "big")).to_bytes(12, "big")
        size = len(content)
        sealed = self._seal(nonce, content, number + start[:3] + size.to_bytes(2, "big"))
        return b"%b%b%b%b" % (start, (size + self._explicit + _TAG).to_bytes(2, "big"), explicit, sealed)

    def open(self, datagram: bytes, header: Header) -> bytes | None:
        """The content of the record at ``header``; None where it is not authentic, came before, is of another epoch or
        longer than MOST_CONTENT."""
        if header.epoch != _EPOCH or not self._window.is_new(header.sequence):
            return None
        at = header.start + HEADER_BYTES
        size = header.end - at - self._explicit - _TAG
        if not 0 <= size <= MOST_CONTENT:
            return None
        number = datagram[header.start + 3 : header.start + 11]
        if self._explicit:
            nonce = self._keys[1].iv + datagram[at : at + _NUMBER_BYTES]
            at += _NUMBER_BYTES
        else:
            nonce = (self._peer_iv ^ int.from_bytes(number, "big")).to_bytes(12, "big")
        start = datagram[header.start : header.start + 3]
        try:
            content = self._open(nonce, datagram[at : header.end], number + start + size.to_bytes(2, "big"))
        except InvalidTag:
            return None
        self._window.take(header.sequence)
        return content

    def export(self) -> RecordState:
        """The whole state. Whoever takes it up goes on sealing, and this object must not."""
        ours, theirs = self._keys
        return RecordState(ours, theirs, self._sequence, self._nonce, self._window.top, self._window.seen)

    @classmethod
    def take_up(cls, state: RecordState) -> RecordLayer:
        """A record layer that goes on where ``export`` left off."""
        layer = cls(state.ours, state.theirs, sequence=state.sequence, nonce=state.nonce)
        layer._window = ReplayWindow(_WINDOW, state.top, state.seen)
        return layer
