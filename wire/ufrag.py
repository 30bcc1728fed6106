"""The sealed ufrag: an ICE username fragment that is also a route, and proves it.

The transceiver that answers an offer makes its ufrag; every client repeats it in the USERNAME of its STUN
checks (RFC 8445 section 7.2.2); the kernel and the workers read the route from it. 24 characters of the ICE
alphabet (RFC 8839 section 5.4), most significant bits first::

    0         version (3 bits), key id (3 bits)
    1 to 3    transceiver id (18 bits)
    4 to 15   random (72 bits)
    16 to 23  high 48 bits of the tag: SipHash-2-4 under the key, over characters 0 to 15 as they stand

The low 8 bits of the tag are the slot that decides the core. ``bpf/steer.c`` does the same arithmetic; both
pass ``tests/vectors/ufrag.json``. A ufrag is not a secret: it keeps invented routes out, while
MESSAGE-INTEGRITY at the transceiver authenticates the caller.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from siphash24 import siphash24

__all__ = [
    "LENGTH",
    "MAX_SISTERS",
    "MAX_SISTER_EDGES",
    "SLOTS",
    "Route",
    "call_id",
    "home_slot",
    "key_id",
    "open_sealed",
    "seal",
    "transceiver_of",
    "ufrag_of_call",
]

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
VERSION = 1
LENGTH = 24
SLOTS = 256
MAX_TRANSCEIVER = (1 << 18) - 1
MAX_KEY_ID = 7
MAX_SISTERS = 4  # clusters whose keys an edge tries on a ufrag that its own do not open
MAX_SISTER_EDGES = 8  # of each

_HEAD = 16
_RANDOM_BITS = 72
_ENDS = [(a + b).encode() for a in ALPHABET for b in ALPHABET]
_VALUE = {ord(c): i for i, c in enumerate(ALPHABET)}
_TO_CALL = str.maketrans("+/", "-_")
_FROM_CALL = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class Route:
    """The route in a ufrag with a valid tag."""

    transceiver: int
    slot: int
    key_id: int


def _digits(value: int, count: int) -> str:
    return "".join(ALPHABET[(value >> (6 * i)) & 63] for i in reversed(range(count)))


def _tag(head: bytes, key: bytes) -> int:
    return int.from_bytes(siphash24(head, key=key).digest(), "little")


def home_slot(transceiver: int) -> int:
    """The slot of a transceiver's calls. They have one, so that they come by one worker of each edge, in few large
    messages. Transceivers with numbers in a row come by different ones, however many workers there are, and so do the
    first ones of hosts that have 256 numbers each."""
    return (transceiver + transceiver // SLOTS) % SLOTS


def seal(transceiver: int, key_id: int, key: bytes, *, slot: int | None = None, random: int | None = None) -> str:
    """A new ufrag for ``transceiver`` under the 16 byte ``key``, of that ``slot`` or of any; ``random`` (72 bits) is
    given by tests only.

    Raises ValueError when a field does not fit.
    """
    if not 0 <= transceiver <= MAX_TRANSCEIVER:
        raise ValueError(f"transceiver id {transceiver} is not between 0 and {MAX_TRANSCEIVER}")
    if not 0 <= key_id <= MAX_KEY_ID:
        raise ValueError(f"key id {key_id} is not between 0 and {MAX_KEY_ID}")
    while True:
        number = secrets.randbits(_RANDOM_BITS) if random is None else random
        head = _digits(VERSION << 3 | key_id, 1) + _digits(transceiver, 3) + _digits(number, 12)
        if slot is not None:
            # Every 256th has the slot, which is the tag's lowest byte. To make each from the start would be a
            # millisecond of the loop's.
            begin = head[:-2].encode()
            end = next((end for end in _ENDS if siphash24(begin + end, key=key).digest()[0] == slot), b"")
            head = (begin + end).decode() if end else ""
        if head:
            return head + _digits(_tag(head.encode(), key) >> 16, 8)


def open_sealed(ufrag: bytes, keys: Mapping[int, bytes]) -> Route | None:
    """The route in ``ufrag``, or None where length, version, key id or tag is wrong."""
    if len(ufrag) != LENGTH:
        return None
    first = _VALUE.get(ufrag[0], -1)
    if first >> 3 != VERSION:
        return None
    key = keys.get(first & 7)
    if key is None:
        return None
    tag = _tag(ufrag[:_HEAD], key)
    if not hmac.compare_digest(ufrag[_HEAD:], _digits(tag >> 16, 8).encode()):
        return None
    return Route(transceiver_of(ufrag), tag % SLOTS, first & 7)


def transceiver_of(ufrag: bytes) -> int:
    """The id that a ufrag of ours names, whether it is sealed or not; -1 for what cannot be one of ours."""
    if len(ufrag) != LENGTH:
        return -1
    transceiver = 0
    for c in ufrag[1:4]:
        if c not in _VALUE:
            return -1
        transceiver = transceiver << 6 | _VALUE[c]
    return transceiver


def key_id(ufrag: bytes) -> int:
    """The id of the key that sealed a ufrag of ours."""
    return _VALUE[ufrag[0]] & 7


def call_id(ufrag: str) -> str:
    """The call's public id: the same sealed route, in characters that need no escape in a URL."""
    return "rtc_" + ufrag.translate(_TO_CALL)


def ufrag_of_call(call: str) -> bytes | None:
    """The ufrag behind a call id, not yet verified, or None where it cannot be one."""
    if not call.startswith("rtc_") or not call.isascii() or len(call) != 4 + LENGTH:
        return None
    return call[4:].translate(_FROM_CALL).encode()
