"""The abilities of an interface with frames of XDP, as generic netlink's family ``netdev`` tells them (Linux 6.3)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

__all__ = ["takes_redirects"]

_NETLINK_GENERIC, _CONTROL, _ERROR, _REQUEST = 16, 0x10, 2, 1
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2  # include/uapi/linux/genetlink.h
_GET_DEVICE, _INDEX, _FEATURES = 1, 1, 3  # include/uapi/linux/netdev.h
_NDO_XMIT = 1 << 2
_HEADER, _GENERIC, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBxx"), struct.Struct("=HH")
_MOST_BYTES = 1 << 16


def takes_redirects(interface: int) -> bool:
    """Whether a frame that XDP redirects to the interface of that index leaves by it. A veth end does where its peer
    takes frames; a driver may once it has a program of its own. False where the kernel does not tell."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) as sock:
            family = _asked(sock, _CONTROL, _GET_FAMILY, _FAMILY_NAME, b"netdev\0")[_FAMILY_ID]
            kind = int.from_bytes(family, "little")
            features = _asked(sock, kind, _GET_DEVICE, _INDEX, struct.pack("=I", interface))[_FEATURES]
    except (OSError, KeyError):
        return False
    return bool(int.from_bytes(features, "little") & _NDO_XMIT)


def _asked(sock: socket.socket, kind: int, command: int, attribute: int, value: bytes) -> dict[int, bytes]:
    """The attributes of the answer. Raises OSError."""
    said = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), attribute) + value + bytes(-len(value) % 4)
    body = _GENERIC.pack(command, 1) + said
    sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST, 1, 0) + body)
    answer = sock.recv(_MOST_BYTES)
    size, answered, *_ = _HEADER.unpack_from(answer)
    if answered == _ERROR:
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        raise OSError(code, os.strerror(code))
    return dict(_attributes(answer[_HEADER.size + _GENERIC.size : size]))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            return
        yield kind, data[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
