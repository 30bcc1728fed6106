"""The wire as tests speak and read it: any message, also one that nobody may say, in the form of any version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack

from wire.frames import HEADS, Data, read_data
from wire.versions import GREETING, OLDEST, VERSION


@dataclass(frozen=True)
class Said:
    """A control message: its ``type`` and all other fields, with the ``request`` among them."""

    type: str
    fields: dict[str, Any]


def raw(type_: str, *, version: int = VERSION, **fields: Any) -> bytes:
    """A control message with whatever fields; a ``request`` has its place."""
    if version > GREETING and type_ != "hello":
        parts = [version, fields.pop("request", None), {"type": type_, **fields}]
    else:
        parts = [GREETING, "control", {"type": type_, **fields}]
    packed: bytes = msgpack.packb(parts)
    return packed


def heard(message: bytes) -> Data | Said:
    """What a message says, of whatever version."""
    if message.startswith(tuple(HEADS.values())):
        return read_data(message)
    version, second, fields = msgpack.unpackb(message)
    assert version == GREETING or OLDEST <= version <= VERSION
    assert second == "control" if version == GREETING else second is None or second >= 0
    if version > GREETING and second is not None:
        fields["request"] = second
    return Said(fields.pop("type"), fields)


def refused_by_3(request: Said) -> bytes:
    """What a transceiver that speaks version 3 and knows no hello replies to one."""
    why = {"code": "invalid_request", "message": f"{request.type}: there is no such message", "param": None}
    return raw("session.refused", version=GREETING, request=request.fields["request"], **why)


def hello_back(hello: Said, least: int = OLDEST, most: int = VERSION) -> bytes:
    """What a transceiver that speaks these versions replies to a hello."""
    assert hello.type == "hello"
    return raw("hello", request=hello.fields["request"], versions=[least, most])
