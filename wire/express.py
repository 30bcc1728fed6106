"""The agreement between an edge and a transceiver of its host on the express path: who they are, and which sockets.

They speak over a Unix socket of the edge's (``door_of``), a message a packet (SOCK_SEQPACKET). Each proves that it
holds the cluster's key file by a MAC over the random numbers of both, so neither a user of the host who can reach the
socket nor one who has put another in its place gets anything. The edge then hands two ``Sockets`` over (SCM_RIGHTS): by
one the transceiver reads the media that XDP brings there, by the other it answers from the shared port. It says
``Reads`` when a first datagram has come there, and XDP begins. From then on it says once a second how much it
``Took``, and the edge says ``Off`` when it takes the sockets back. When the transceiver ends, and the connection with
it, media goes by the workers again.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta

from wire.fields import Text, Transceiver
from wire.keys import ClusterKeys

__all__ = [
    "MOST_BYTES",
    "SUFFIX",
    "Challenge",
    "Claim",
    "ExpressError",
    "Message",
    "Off",
    "Proofs",
    "Reads",
    "Sockets",
    "Took",
    "door_of",
    "read",
]

SUFFIX = ".express"
MOST_BYTES = 2048
_VERSION = 1

Nonce = Annotated[bytes, Meta(min_length=32, max_length=32)]
Proof = Annotated[bytes, Meta(min_length=32, max_length=32)]


class ExpressError(ValueError):
    """The error that the other end says what it may not, or cannot prove who it is."""


class _Message(msgspec.Struct, frozen=True, tag_field="type"):
    def dump(self) -> bytes:
        """The message as it is sent."""
        return msgspec.msgpack.encode(self)


class Challenge(_Message, tag="challenge", frozen=True):
    """The edge's first words."""

    edge: Text
    """``edge.name``, by which the transceiver knows the paths of its clients."""
    nonce: Nonce
    version: Annotated[int, Meta(ge=1, le=_VERSION)] = _VERSION


class Claim(_Message, tag="claim", frozen=True):
    """The transceiver's answer."""

    id: Transceiver
    place: Text
    """Its host and network (``runtime.process.instance``): the edge's sockets are of no use in another."""
    nonce: Nonce
    proof: Proof


class Sockets(_Message, tag="sockets", frozen=True):
    """The sockets, which come with this message: to read, and to send by. By the first comes the ``probe``, a datagram
    of these bytes, unless something of the host's keeps from it what XDP passes."""

    proof: Proof
    probe: Nonce


class Reads(_Message, tag="reads", frozen=True):
    """The transceiver has got the probe, or media before, and reads from now on."""


class Took(_Message, tag="took", frozen=True):
    """The transceiver still reads."""

    datagrams: Annotated[int, Meta(ge=0, lt=1 << 62)]
    """The number of those that came by these sockets, so far."""


class Off(_Message, tag="off", frozen=True):
    """There is no express path, or none any more: the sockets are to be closed."""

    why: Text
    proof: Annotated[bytes, Meta(max_length=32)] = b""


Message = Challenge | Claim | Sockets | Reads | Took | Off
_decoder = msgspec.msgpack.Decoder(Message)


def door_of(run: Path, edge: str) -> Path:
    """The path of the edge's Unix socket in the folder ``run``."""
    return run / f"{edge}{SUFFIX}"


def read(said: bytes) -> Message:
    """The message. Raises ExpressError."""
    try:
        message: Message = _decoder.decode(said)
    except (ValueError, TypeError, RecursionError) as e:  # msgspec's own errors are ValueErrors
        raise ExpressError(f"no message of the express path: {e}") from None
    return message


class Proofs:
    """The proofs of one connection, with the cluster's ``keys``: HMAC-SHA256 under a key that is derived from the link
    secret (HKDF, RFC 5869)."""

    def __init__(self, keys: ClusterKeys, challenge: Challenge) -> None:
        self._key = HKDF(SHA256(), length=32, salt=None, info=b"firsthop express 1").derive(keys.link)
        self._challenge = challenge

    def claim(self, number: int, place: str) -> Claim:
        """The claim of a transceiver."""
        nonce = secrets.token_bytes(32)
        return Claim(number, place, nonce, self._of(b"transceiver", number, place, nonce))

    def believes(self, claim: Claim) -> bool:
        """Whether a transceiver of this cluster claims that."""
        return hmac.compare_digest(claim.proof, self._of(b"transceiver", claim.id, claim.place, claim.nonce))

    def edge(self, claim: Claim) -> bytes:
        """What proves to who claims that it speaks with an edge of this cluster."""
        return self._of(b"edge", claim.id, claim.place, claim.nonce)

    def believes_edge(self, claim: Claim, proof: bytes) -> bool:
        """Whether an edge of this cluster answers the claim."""
        return hmac.compare_digest(proof, self.edge(claim))

    def _of(self, who: bytes, number: int, place: str, nonce: bytes) -> bytes:
        said = msgspec.msgpack.encode([who, self._challenge.edge, self._challenge.nonce, number, place, nonce])
        return hmac.new(self._key, said, hashlib.sha256).digest()


def challenge(edge: str) -> Challenge:
    """A new challenge of the edge of that name."""
    return Challenge(edge, secrets.token_bytes(32))
