"""The messages between an edge's processes and a transceiver, each one ZeroMQ part.

It is a msgpack array that begins with the version and the kind. A *data* message carries a batch of datagrams,
``[version, "data", stamp, held, lengths, addresses, body]``, with the datagrams end to end in ``body``. A *control*
message is ``[version, "control", map]``; the map's ``type`` names it. Both directions use the same form: the address is
always the client's.

``stamp`` and ``held`` are nanoseconds, and tell how long the link takes without comparing two hosts' clocks. A worker
stamps its messages by its own monotonic clock; the transceiver's next message gives the last stamp that it saw back,
once, with the time for which it held it. So now - stamp - held, at the worker, is the way there and back. A stamp of 0
is none.

Packing and unpacking copy the body once each. Parts of its own would save that, and cost three calls into ZeroMQ, which
are dearer for every batch that a link carries.

Control messages, sender first:

* signaling -> transceiver: ``session.offer`` {request, offer, agent, media: [host, port], session?, owner?, holder?,
  locked?, dcid?}, ``session.open`` {request, agent, session?, owner?, holder?, locked?} (a session without media),
  ``session.watch`` {request, ufrag, owner?} and ``session.unwatch`` {ufrag} (its events are wanted, or not any more; as
  often as it was asked for), ``session.event`` {ufrag, event} (of the client that opened it, or of one that watches;
  JSON text, and no more of it than ``link.MAX_EVENT_BYTES``), ``session.end`` {request, ufrag, owner?}, ``session.ice``
  {request, ufrag, match, remote: [ufrag, password] or nil, media, owner?} (RFC 9725 section 4.3: ``match`` is our
  present ufrag, or a star), ``session.check`` {request, agent, session?, locked?} (whether such a session would be
  taken), ``health`` {request}. ``session`` is a map as in the Realtime API's ``session.update``; ``locked`` names
  fields of it that the session's client may neither change nor see, because who made its key says so: those keep what
  ``session`` says, or their defaults; ``dcid`` is the stream of the events channel where the client has negotiated one
  itself; ``owner`` is on whose account a session is, and where it is another's there is none for who asks; ``holder``
  is the ephemeral key that a call was placed with, whose calls that have not connected are limited
* transceiver -> signaling: ``session.answer`` {request, ufrag, sdp}, ``session.opened`` {request, ufrag},
  ``session.watching`` {request, session} (as in ``session.created``, for who watches from now on), ``session.event``
  {ufrag, event} (each once, however often it is watched from there), ``session.closed`` {ufrag, reason} (to who opened
  or watches it), ``session.ended`` {request}, ``session.checked`` {request}, ``session.ice`` {request, ufrag, fragment}
  (SDP where ICE restarts, or empty), ``session.refused`` {request, code, message, param}, ``health`` {request,
  sessions, agents}
* transceiver -> worker: ``path.up`` {address, ufrag, ssrcs, spare_ms, proved}, ``path.down`` {address}; ``spare_ms`` is
  how long the media of that path may wait at the worker, 0 if it is left out. The ufrag's seal says whose the path is,
  and the worker grants it to whom it passed something on from there (``edge.relay.claims``); a path that is not
  ``proved`` yet takes none from another transceiver

What their fields may be is in ``wire.control``. A request that cannot be used is refused with code ``invalid_request``,
one that the transceiver fails at with ``internal_error``.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from wire.address import SIZE as ADDRESS_BYTES

__all__ = [
    "MAX_DATAGRAMS",
    "VERSION",
    "Control",
    "Data",
    "OtherVersionError",
    "WireError",
    "control",
    "data",
    "decode",
    "pack_batch",
]

VERSION = 3
MAX_DATAGRAMS = 1024

# msgspec bounds the depth of what it reads, and believes no length before it has seen the bytes: msgpack's own reader
# takes 60 ms for 64 KiB of arrays that say they are long.
_encode = msgspec.msgpack.Encoder().encode
_reader = msgspec.msgpack.Decoder[Any]()
_data_reader = msgspec.msgpack.Decoder(tuple[int, str, int, int, bytes, bytes, bytes])
_NO_DATA = "data message is not two numbers, lengths, addresses and one body"
_DATA_HEAD = _encode([VERSION, "data", *[0] * 5])[:-5]

T = TypeVar("T")


class WireError(ValueError):
    """A message that this version cannot read. The text says what was wrong and with which version."""


class OtherVersionError(WireError):
    """It is of another version: so will the next be."""


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


def data(addresses: bytes, lengths: npt.NDArray[np.uint16], body: bytes, stamp_ns: int = 0, held_ns: int = 0) -> bytes:
    """A data message; shapes and units as in ``Data``."""
    packed = lengths.astype("<u2", copy=False).tobytes()
    return _encode([VERSION, "data", stamp_ns, held_ns, packed, addresses, body])


def pack_batch(batch: Sequence[tuple[bytes, bytes]], stamp_ns: int = 0, held_ns: int = 0) -> bytes:
    """A data message from (address, datagram) pairs."""
    lengths = np.fromiter((len(d) for _, d in batch), np.uint16, len(batch))
    return data(b"".join(a for a, _ in batch), lengths, b"".join(d for _, d in batch), stamp_ns, held_ns)


def control(type_: str, **fields: Any) -> bytes:
    """A control message."""
    return _encode([VERSION, "control", {"type": type_, **fields}])


def decode(message: bytes, most_control_bytes: int = sys.maxsize) -> Data | Control:
    """What ``message`` says. Raises WireError for an unknown kind, lengths that do not add up or a control message that
    is longer than that; OtherVersionError for another version."""
    if message.startswith(_DATA_HEAD):
        return _decode_data(message)
    if len(message) > most_control_bytes:
        raise WireError(f"control message of {len(message)} bytes: at most {most_control_bytes}")
    said = _read(_reader, message, "not msgpack")
    if not isinstance(said, list) or len(said) < 3:
        raise WireError("not an array of version, kind and fields")
    if said[0] != VERSION:
        raise OtherVersionError(
            f"wire version {reprlib.repr(said[0])}, this side speaks {VERSION}: upgrade the older one"
        )
    if said[1] == "data":
        raise WireError(_NO_DATA)
    if said[1] == "control":
        fields = said[2]
        if len(said) != 3 or not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
            raise WireError("control message without a map that names its type")
        return Control(fields.pop("type"), fields)
    raise WireError(f"unknown kind {reprlib.repr(said[1])}")


def _read(reader: msgspec.msgpack.Decoder[T], message: bytes, otherwise: str) -> T:
    try:
        return reader.decode(message)
    except (ValueError, TypeError, RecursionError) as e:  # msgspec's own errors are ValueErrors
        raise WireError(f"{otherwise}: {e}") from None


def _decode_data(message: bytes) -> Data:
    _, _, stamp_ns, held_ns, packed, addresses, body = _read(_data_reader, message, _NO_DATA)
    if len(packed) % 2:
        raise WireError("lengths are not 16 bit words")
    lengths = np.frombuffer(packed, "<u2")
    if len(lengths) > MAX_DATAGRAMS or len(addresses) != ADDRESS_BYTES * len(lengths):
        raise WireError(f"{len(lengths)} datagrams with {len(addresses)} bytes of addresses")
    if int(np.add.reduce(lengths, dtype=np.int64)) != len(body):
        raise WireError(f"lengths do not add up to the body's {len(body)} bytes")
    return Data(addresses, lengths, body, stamp_ns, held_ns)
