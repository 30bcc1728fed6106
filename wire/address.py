"""A flow's address as 18 bytes: an IPv6 address (IPv4 as ``::ffff:a.b.c.d``) and a port, in network order.

One form serves frames, dictionary keys and kernel maps alike.
"""

from __future__ import annotations

import socket
import struct

__all__ = ["SIZE", "is_ipv4", "pack", "show", "to_ipv6", "unpack"]

SIZE = 18
_MAPPED = bytes(10) + b"\xff\xff"


def pack(host: str, port: int) -> bytes:
    """18 bytes from a numeric IPv4 or IPv6 ``host``. Raises OSError for anything else."""
    raw = socket.inet_pton(socket.AF_INET6, host) if ":" in host else _MAPPED + socket.inet_pton(socket.AF_INET, host)
    return raw + struct.pack("!H", port)


def is_ipv4(address: bytes) -> bool:
    """Whether the address is an IPv4-mapped one."""
    return address[:12] == _MAPPED


def unpack(address: bytes) -> tuple[str, int]:
    """Numeric host (dotted for an IPv4-mapped address) and port."""
    port = int.from_bytes(address[16:18], "big")
    if is_ipv4(address):
        return socket.inet_ntop(socket.AF_INET, address[12:16]), port
    return socket.inet_ntop(socket.AF_INET6, address[:16]), port


def to_ipv6(address: bytes) -> tuple[str, int]:
    """The same for a socket of IPv6, to which an IPv4 address is a mapped one."""
    return socket.inet_ntop(socket.AF_INET6, address[:16]), int.from_bytes(address[16:18], "big")


def show(address: bytes) -> str:
    """``host:port``, for people."""
    host, port = unpack(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
