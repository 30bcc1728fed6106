"""STUN for ICE (RFC 8489, RFC 8445): just the binding method, both ways.

Parsing never raises: bytes from the network either are a message or are None. An attribute is looked at only
where it stands before MESSAGE-INTEGRITY, as RFC 8489 section 14.5 demands.
"""

from __future__ import annotations

import hmac
import secrets
import struct
import zlib
from dataclasses import dataclass

from wire import address as flow

__all__ = ["Message", "binding_request", "binding_response", "integrity_is_valid", "parse", "server_ufrag"]

COOKIE = 0x2112A442
BINDING_REQUEST = 0x0001
BINDING_RESPONSE = 0x0101
BINDING_INDICATION = 0x0011

USERNAME = 0x0006
MESSAGE_INTEGRITY = 0x0008
XOR_MAPPED_ADDRESS = 0x0020
PRIORITY = 0x0024
USE_CANDIDATE = 0x0025
FINGERPRINT = 0x8028
ICE_CONTROLLED = 0x8029
ICE_CONTROLLING = 0x802A

_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_COOKIE_BYTES = struct.pack("!I", COOKIE)
_FINGERPRINT_XOR = 0x5354554E


@dataclass(frozen=True, slots=True)
class Message:
    """A parsed message. ``attributes`` holds the first of each type; ``integrity_at`` is the byte offset of the
    MESSAGE-INTEGRITY attribute, or None where there is none."""

    kind: int
    transaction: bytes
    attributes: dict[int, bytes]
    integrity_at: int | None
    raw: bytes


def parse(data: bytes) -> Message | None:
    """The message in ``data``, or None unless it is well-formed STUN of the right length with a correct
    FINGERPRINT, if it has one."""
    if len(data) < 20 or data[0] > 3:
        return None
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if cookie != COOKIE or length % 4 or length + 20 != len(data):
        return None
    attributes: dict[int, bytes] = {}
    integrity_at: int | None = None
    at = 20
    while at + 4 <= len(data):
        name, size = _ATTRIBUTE.unpack_from(data, at)
        end = at + 4 + size
        if end > len(data):
            return None
        if name == FINGERPRINT:
            if size != 4 or end != len(data) or data[at + 4 : end] != _fingerprint(data[:at]):
                return None
        elif name == MESSAGE_INTEGRITY:
            if size != 20:
                return None
            if integrity_at is None:
                integrity_at = at
                attributes[name] = data[at + 4 : end]
        elif integrity_at is None:
            attributes.setdefault(name, data[at + 4 : end])
        at = end + (-size % 4)
    if at != len(data):
        return None
    return Message(kind, transaction, attributes, integrity_at, data)


def server_ufrag(message: Message) -> bytes | None:
    """The receiver's half of USERNAME, or None where there is no such attribute."""
    ufrag, colon, _ = message.attributes.get(USERNAME, b"").partition(b":")
    return ufrag if colon else None


def integrity_is_valid(message: Message, password: bytes) -> bool:
    """Whether MESSAGE-INTEGRITY is there and right for ``password``. A missing one is not valid."""
    at = message.integrity_at
    if at is None:
        return False
    # The length field counts up to and including this attribute, whatever follows it.
    covered = message.raw[:2] + struct.pack("!H", at + 4) + message.raw[4:at]
    return hmac.compare_digest(hmac.digest(password, covered, "sha1"), message.attributes[MESSAGE_INTEGRITY])


def binding_response(request: Message, client: bytes, password: bytes) -> bytes:
    """The success response to ``request`` that came from the 18 byte address ``client``."""
    host, port = client[:16], int.from_bytes(client[16:], "big") ^ (COOKIE >> 16)
    if flow.is_ipv4(client):
        mapped = struct.pack("!BBH", 0, 1, port) + _xor(host[12:], _COOKIE_BYTES)
    else:
        mapped = struct.pack("!BBH", 0, 2, port) + _xor(host, _COOKIE_BYTES + request.transaction)
    return _finish(BINDING_RESPONSE, request.transaction, _attribute(XOR_MAPPED_ADDRESS, mapped), password)


def binding_request(
    username: bytes,
    password: bytes,
    *,
    priority: int = 0x7EFFFFFF,
    tie_breaker: int | None = None,
    nominate: bool = False,
    controlled: int | None = None,
    transaction: bytes | None = None,
) -> bytes:
    """A connectivity check. With a ``tie_breaker`` the sender is the controlling agent, and may ``nominate``;
    ``controlled`` is that of the other."""
    body = _attribute(USERNAME, username) + _attribute(PRIORITY, struct.pack("!I", priority))
    if tie_breaker is not None:
        body += _attribute(ICE_CONTROLLING, struct.pack("!Q", tie_breaker))
        if nominate:
            body += _attribute(USE_CANDIDATE, b"")
    elif controlled is not None:
        body += _attribute(ICE_CONTROLLED, struct.pack("!Q", controlled))
    return _finish(BINDING_REQUEST, transaction or secrets.token_bytes(12), body, password)


def _attribute(name: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(name, len(value)) + value + bytes(-len(value) % 4)


def _finish(kind: int, transaction: bytes, body: bytes, password: bytes) -> bytes:
    covered = _HEADER.pack(kind, len(body) + 24, COOKIE, transaction) + body
    signed = body + _attribute(MESSAGE_INTEGRITY, hmac.digest(password, covered, "sha1"))
    message = _HEADER.pack(kind, len(signed) + 8, COOKIE, transaction) + signed
    return message + _attribute(FINGERPRINT, _fingerprint(message))


def _fingerprint(covered: bytes) -> bytes:
    return struct.pack("!I", zlib.crc32(covered) ^ _FINGERPRINT_XOR)


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))
