"""The messages between an edge's processes and a transceiver, as ZeroMQ parts.

Part 0 is a msgpack array that begins with the version and the kind. A *data* message carries a batch of
datagrams: ``[version, "data", lengths, addresses]`` and, in part 1, the datagrams end to end. A *control*
message is ``[version, "control", map]``; the map's ``type`` names it. Both directions use the same form: the
address is always the client's.

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

VERSION = 1
MAX_DATAGRAMS = 1024
MAX_HEADER_BYTES = 256 * 1024


class WireError(ValueError):
    """A message that this version cannot read. The text says what was wrong and with which version."""


@dataclass(frozen=True, slots=True)
class Data:
    """A batch: ``addresses`` n times 18 bytes end to end, ``lengths`` (n,) uint16, ``body`` the datagrams end to
    end."""

    addresses: bytes
    lengths: npt.NDArray[np.uint16]
    body: memoryview

    def __len__(self) -> int:
        return len(self.lengths)

    def datagrams(self) -> list[tuple[bytes, bytes]]:
        """(address, datagram) in the order of arrival."""
        out = []
        at = 0
        body = bytes(self.body)
        for i, length in enumerate(self.lengths.tolist()):
            out.append((self.addresses[i * ADDRESS_BYTES : (i + 1) * ADDRESS_BYTES], body[at : at + length]))
            at += length
        return out


@dataclass(frozen=True, slots=True)
class Control:
    """A control message: its ``type`` and the other fields of its map."""

    type: str
    fields: dict[str, Any]


def data(addresses: bytes, lengths: npt.NDArray[np.uint16], body: bytes | memoryview) -> list[bytes | memoryview]:
    """The two parts of a data message; shapes as in ``Data``."""
    packed = lengths.astype("<u2", copy=False).tobytes()
    return [msgpack.packb([VERSION, "data", packed, addresses]), body]


def pack_batch(batch: Sequence[tuple[bytes, bytes]]) -> list[bytes | memoryview]:
    """The two parts of a data message from (address, datagram) pairs."""
    lengths = np.fromiter((len(d) for _, d in batch), np.uint16, len(batch))
    return data(b"".join(a for a, _ in batch), lengths, b"".join(d for _, d in batch))


def control(type_: str, **fields: Any) -> list[bytes]:
    """The one part of a control message."""
    return [msgpack.packb([VERSION, "control", {"type": type_, **fields}])]


def decode(parts: Sequence[bytes | memoryview]) -> Data | Control:
    """The message in ``parts``. Raises WireError for another version, an unknown kind or lengths that do not
    add up."""
    if len(parts[0]) > MAX_HEADER_BYTES:
        raise WireError(f"header of {len(parts[0])} bytes, at most {MAX_HEADER_BYTES} are read")
    try:
        head = msgpack.unpackb(parts[0])
    except Exception as e:  # msgpack raises half a dozen unrelated types for bad bytes
        raise WireError(f"header is not msgpack: {e}") from None
    if not isinstance(head, list) or len(head) < 3:
        raise WireError("header is not an array of version, kind and fields")
    if head[0] != VERSION:
        raise WireError(f"wire version {head[0]!r}, this side speaks {VERSION}: upgrade the older one")
    if head[1] == "data":
        return _decode_data(head, parts)
    if head[1] == "control":
        fields = head[2]
        if len(parts) != 1 or not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
            raise WireError("control message without a map that names its type")
        return Control(fields.pop("type"), fields)
    raise WireError(f"unknown kind {head[1]!r}")


def _decode_data(head: list[Any], parts: Sequence[bytes | memoryview]) -> Data:
    if len(head) != 4 or len(parts) != 2 or not (isinstance(head[2], bytes) and isinstance(head[3], bytes)):
        raise WireError("data message is not lengths, addresses and one body")
    if len(head[2]) % 2:
        raise WireError("lengths are not 16 bit words")
    lengths = np.frombuffer(head[2], "<u2")
    body = memoryview(parts[1])
    if len(lengths) > MAX_DATAGRAMS or len(head[3]) != ADDRESS_BYTES * len(lengths):
        raise WireError(f"{len(lengths)} datagrams with {len(head[3])} bytes of addresses")
    if int(lengths.sum(dtype=np.int64)) != len(body):
        raise WireError(f"lengths do not add up to the body's {len(body)} bytes")
    return Data(head[3], lengths, body)
