"""The opening of a link by a release that speaks version 4: requests in the form of version 3.

It began links in the version before its own, until its hello was answered. So whoever speaks with it reads that form
from those that have said hello, for as long as version 4 is spoken; what never says hello is older, and is told so.
"""

from __future__ import annotations

import msgspec

from wire.versions import GREETING, OLDEST

__all__ = ["renewed"]

_Map = dict[str, msgspec.Raw]
_decode = msgspec.msgpack.Decoder(tuple[int, str, _Map]).decode
_encode = msgspec.msgpack.Encoder().encode
_NIL = msgspec.Raw(b"\xc0")


def renewed(said: bytes) -> bytes | None:
    """The control message ``[3, "control", map]`` as ``[4, request, map]``; None where it is none."""
    try:
        version, kind, fields = _decode(said)
    except (ValueError, TypeError, RecursionError):  # msgspec's own errors are ValueErrors
        return None
    if version != GREETING or kind != "control":
        return None
    return _encode([OLDEST, fields.pop("request", _NIL), fields])
