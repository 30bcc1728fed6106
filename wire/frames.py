"""The messages between an edge's processes and a transceiver, each one ZeroMQ part.

It is a msgpack array that begins with the version and the kind. A *data* message carries a batch of datagrams,
``[version, "data", lengths, addresses, body]``, with the datagrams end to end in ``body``. A *control* message is
``[version, "control", map]``; the map's ``type`` names it. Both directions use the same form: the address is always
the client's.

Packing and unpacking copy the body once each. Parts of its own would save that, and cost three calls into ZeroMQ, which
are dearer for every batch that a link carries.

Control messages, sender first:

* signaling -> transceiver: ``session.offer`` {request, offer, agent, media: [host, port]}, ``session.end``
  {request, ufrag}, ``health`` {request}
* transceiver -> signaling: ``session.answer`` {request, ufrag, sdp}, ``session.ended`` {request},
  ``session.refused`` {request, code, message, param}, ``health`` {request, sessions, agents}
* transceiver -> worker: ``path.up`` {address, ufrag, ssrcs}, ``path.down`` {address}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from wire.address import SIZE as ADDRESS_BYTES

__all__ = [
    "MAX_DATAGRAMS",
    "VERSION",
    "Control",
    "Data",
    "WireError",
    "control",
    "data",
    "decode",
    "pack_batch",
]

VERSION = 2
MAX_DATAGRAMS = 1024


class WireError(ValueError):
    """A message that this version cannot read. The text says what was wrong and with which version."""


@dataclass(frozen=True, slots=True)
class Data:
    """A batch: ``addresses`` n times 18 bytes end to end, ``lengths`` (n,) uint16, ``body`` the datagrams end to
    end."""

    addresses: bytes
    lengths: npt.NDArray[np.uint16]
    body: bytes

    def __len__(self) -> int:
        return len(self.lengths)

    def datagrams(self) -> list[tuple[bytes, bytes]]:
        """(address, datagram) in the order of arrival."""
        out = []
        at = 0
        for i, length in enumerate(self.lengths.tolist()):
            out.append((self.addresses[i * ADDRESS_BYTES : (i + 1) * ADDRESS_BYTES], self.body[at : at + length]))
            at += length
        return out


@dataclass(frozen=True, slots=True)
class Control:
    """A control message: its ``type`` and the other fields of its map."""

    type: str
    fields: dict[str, Any]


def data(addresses: bytes, lengths: npt.NDArray[np.uint16], body: bytes) -> bytes:
    """A data message; shapes as in ``Data``."""
    packed = lengths.astype("<u2", copy=False).tobytes()
    message: bytes = msgpack.packb([VERSION, "data", packed, addresses, body])
    return message


def pack_batch(batch: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A data message from (address, datagram) pairs."""
    lengths = np.fromiter((len(d) for _, d in batch), np.uint16, len(batch))
    return data(b"".join(a for a, _ in batch), lengths, b"".join(d for _, d in batch))


def control(type_: str, **fields: Any) -> bytes:
    """A control message."""
    message: bytes = msgpack.packb([VERSION, "control", {"type": type_, **fields}])
    return message


def decode(message: bytes) -> Data | Control:
    """What ``message`` says. Raises WireError for another version, an unknown kind or lengths that do not add up."""
    try:
        said = msgpack.unpackb(message)
    except Exception as e:  # msgpack raises half a dozen unrelated types for bad bytes
        raise WireError(f"not msgpack: {e}") from None
    if not isinstance(said, list) or len(said) < 3:
        raise WireError("not an array of version, kind and fields")
    if said[0] != VERSION:
        raise WireError(f"wire version {said[0]!r}, this side speaks {VERSION}: upgrade the older one")
    if said[1] == "data":
        return _decode_data(said)
    if said[1] == "control":
        fields = said[2]
        if len(said) != 3 or not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
            raise WireError("control message without a map that names its type")
        return Control(fields.pop("type"), fields)
    raise WireError(f"unknown kind {said[1]!r}")


def _decode_data(said: list[Any]) -> Data:
    if len(said) != 5 or not all(isinstance(field, bytes) for field in said[2:]):
        raise WireError("data message is not lengths, addresses and one body")
    _, _, packed, addresses, body = said
    if len(packed) % 2:
        raise WireError("lengths are not 16 bit words")
    lengths = np.frombuffer(packed, "<u2")
    if len(lengths) > MAX_DATAGRAMS or len(addresses) != ADDRESS_BYTES * len(lengths):
        raise WireError(f"{len(lengths)} datagrams with {len(addresses)} bytes of addresses")
    if int(np.add.reduce(lengths, dtype=np.int64)) != len(body):
        raise WireError(f"lengths do not add up to the body's {len(body)} bytes")
    return Data(addresses, lengths, body)
