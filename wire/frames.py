"""Data messages between workers and transceivers: a batch of datagrams as one ZeroMQ part.

It is a msgpack array, ``[version, "data", stamp, held, lengths, addresses, body]``, with the datagrams end to end in
``body``. Both directions use the same form: the address is always the client's. Control messages travel by the same
links (``wire.control``).

``stamp`` and ``held`` are nanoseconds, and tell how long the link takes without comparing two hosts' clocks. A worker
stamps its messages by its own monotonic clock; the transceiver's next message gives the last stamp that it saw back,
once, with the time for which it held it. So now - stamp - held, at the worker, is the way there and back. A stamp of 0
is none.

Packing and unpacking copy the body once each. Parts of its own would save that, and cost three calls into ZeroMQ, which
are dearer for every batch that a link carries.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from wire.address import SIZE as ADDRESS_BYTES
from wire.versions import GREETING, OLDEST, VERSION

__all__ = [
    "HEADS",
    "MAX_DATAGRAMS",
    "NOT_DATA",
    "Data",
    "OtherVersionError",
    "WireError",
    "data",
    "pack_batch",
    "read_data",
]

MAX_DATAGRAMS = 1024
NOT_DATA = "data message is not two numbers, lengths, addresses and one body"

# msgspec bounds the depth of what it reads, and believes no length before it has seen the bytes: msgpack's own reader
# takes 60 ms for 64 KiB of arrays that say they are long.
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, str, int, int, bytes, bytes, bytes]).decode
# How the data messages of each version begin: the cheapest way to know one. Who speaks version 4 begins links in 3.
HEADS = {version: _encode([version, "data", *[0] * 5])[:-5] for version in (GREETING, *range(OLDEST, VERSION + 1))}


class WireError(ValueError):
    """The error that a message cannot be read, or may not be said. The text says what was wrong."""


class OtherVersionError(WireError):
    """The error that a message is of a version that this side does not speak; so will the next be. ``request`` is its
    number where it waits for a reply and can be told in the form of ``GREETING``."""

    def __init__(self, text: str, request: int | None = None) -> None:
        super().__init__(text)
        self.request = request


@dataclass(slots=True)  # frozen would cost a microsecond for every batch
class Data:
    """A batch: ``addresses`` n times 18 bytes end to end, ``lengths`` (n,) uint16, ``body`` the datagrams end to
    end; ``stamp_ns`` and ``held_ns`` as above."""

    addresses: bytes
    lengths: npt.NDArray[np.uint16]
    body: bytes
    stamp_ns: int = 0
    held_ns: int = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def parts(self, most: int) -> list[Data]:
        """The same in batches of ``most`` datagrams and less; the stamp is in the first."""
        if len(self) <= most:
            return [self]
        parts, at = [], 0
        for first in range(0, len(self), most):
            lengths = self.lengths[first : first + most]
            end = at + int(np.add.reduce(lengths, dtype=np.int64))
            addresses = self.addresses[first * ADDRESS_BYTES : (first + most) * ADDRESS_BYTES]
            parts.append(Data(addresses, lengths, self.body[at:end]))
            at = end
        parts[0].stamp_ns, parts[0].held_ns = self.stamp_ns, self.held_ns
        return parts

    def datagrams(self) -> list[tuple[bytes, bytes]]:
        """(address, datagram) in the order of arrival."""
        addresses, body = self.addresses, self.body
        out, first, at = [], 0, 0
        for length in self.lengths.tolist():
            out.append((addresses[first : first + ADDRESS_BYTES], body[at : at + length]))
            first += ADDRESS_BYTES
            at += length
        return out


def data(
    addresses: bytes,
    lengths: npt.NDArray[np.uint16],
    body: bytes,
    stamp_ns: int = 0,
    held_ns: int = 0,
    version: int = VERSION,
) -> bytes:
    """A data message in that version; shapes and units as in ``Data``."""
    packed = lengths.astype("<u2", copy=False).tobytes()
    return _encode([version, "data", stamp_ns, held_ns, packed, addresses, body])


def pack_batch(
    batch: Sequence[tuple[bytes, bytes]], stamp_ns: int = 0, held_ns: int = 0, version: int = VERSION
) -> bytes:
    """A data message from (address, datagram) pairs."""
    # Batches are short: an array of NumPy's takes longer to make than all of this.
    addresses, datagrams = [a for a, _ in batch], [d for _, d in batch]
    packed = struct.pack(f"<{len(batch)}H", *map(len, datagrams))
    return _encode([version, "data", stamp_ns, held_ns, packed, b"".join(addresses), b"".join(datagrams)])


def read_data(message: bytes) -> Data:
    """The batch in a message that begins with one of ``HEADS``. Raises WireError where it does not add up."""
    try:
        _, _, stamp_ns, held_ns, packed, addresses, body = _decode(message)
    except (ValueError, TypeError, RecursionError) as e:  # msgspec's own errors are ValueErrors
        raise WireError(f"{NOT_DATA}: {e}") from None
    if len(packed) % 2:
        raise WireError("lengths are not 16 bit words")
    lengths = np.frombuffer(packed, "<u2")
    if len(lengths) > MAX_DATAGRAMS or len(addresses) != ADDRESS_BYTES * len(lengths):
        raise WireError(f"{len(lengths)} datagrams with {len(addresses)} bytes of addresses")
    if sum(lengths.tolist()) != len(body):
        raise WireError(f"lengths do not add up to the body's {len(body)} bytes")
    return Data(addresses, lengths, body, stamp_ns, held_ns)
