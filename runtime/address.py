"""Addresses, prefixes and endpoints of a configuration, taken apart once, when it is read.

All are text, kept as it was written: so they are printed and compared, and so they go to a child as JSON.
"""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from wire.address import pack

__all__ = ["Address", "Endpoint", "Prefix", "findable"]

_MOST_PATH_BYTES = 107  # unix(7)


class _Text(str):
    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


class Address(_Text):
    """``host:port`` or ``[v6]:port``, with a numeric ``host`` and a ``port`` from 0 to 65535. Raises ValueError for
    anything else."""

    __slots__ = ("host", "port")
    host: str
    port: int

    def __new__(cls, text: str) -> Self:
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            number = int(port) if colon else -1
            pack(host, 0)
        except (OSError, ValueError):
            number = -1
        if not 0 <= number <= 65535:
            raise ValueError(
                f"{text!r} is not a numeric address and port such as 203.0.113.10:3478 or [2001:db8::1]:3478"
            )
        self = super().__new__(cls, text)
        self.host, self.port = host, number
        return self

    @classmethod
    def of(cls, host: str, port: int) -> Self:
        """The address of a numeric ``host`` and a ``port``."""
        return cls(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    @property
    def pair(self) -> tuple[str, int]:
        """Host and port, as sockets take them."""
        return self.host, self.port

    def up(self, ports: int) -> Self:
        """The address whose port is so many higher. Raises ValueError where there is none."""
        return self.of(self.host, self.port + ports)


class Prefix(_Text):
    """An IPv4 or IPv6 network such as ``198.51.100.0/28``; an address alone is the network of that address. ``mapped``
    is its first address in 16 bytes (IPv4 as ``::ffff:a.b.c.d``) and the number of bits that count, out of 128. Raises
    ValueError for anything else."""

    __slots__ = ("mapped", "network")
    mapped: tuple[bytes, int]
    network: IPv4Network | IPv6Network

    def __new__(cls, text: str) -> Self:
        try:
            network = ip_network(text)
            first = pack(str(network.network_address), 0)[:16]
        except (OSError, ValueError):
            raise ValueError(
                f"{text!r} is not a network such as 198.51.100.7, 198.51.100.0/28 or 2001:db8::/64, its other bits 0"
            ) from None
        self = super().__new__(cls, text)
        self.network = network
        self.mapped = first, network.prefixlen + (96 if network.version == 4 else 0)
        return self


class Endpoint(_Text):
    """``tcp://address:port`` or ``ipc:///path``, as ZeroMQ takes it: ``address`` is None or ``path`` is. An abstract
    socket's path begins with an @. Raises ValueError for anything else."""

    __slots__ = ("address", "path")
    address: Address | None
    path: str | None

    def __new__(cls, text: str) -> Self:
        scheme, _, rest = text.partition("://")
        self = super().__new__(cls, text)
        self.address = self.path = None
        if scheme == "tcp":
            self.address = findable(Address(rest))
        elif scheme != "ipc" or not rest.startswith(("/", "@")):
            raise ValueError(f"{text!r} is neither tcp://address:port nor ipc:///path")
        elif len(os.fsencode(rest)) > _MOST_PATH_BYTES:
            raise ValueError(f"{text!r}: a socket's path has at most {_MOST_PATH_BYTES} bytes")
        else:
            self.path = rest
        return self

    def up(self, places: int) -> Self:
        """The endpoint whose last number is so much higher. Raises ValueError where there is none."""
        if places == 0:
            return self
        before, number, after = re.fullmatch(r"(.*?)(\d*)([^\d/]*)", self, re.DOTALL).groups()  # type: ignore[union-attr]
        if not number:
            raise ValueError("there is no number in it that could count up to the next process")
        try:
            return type(self)(f"{before}{int(number) + places}{after}")
        except ValueError as e:
            raise ValueError(f"of process {places + 1} it would be {e}") from None


def findable(address: Address) -> Address:
    """The address itself. Raises ValueError where its port is 0, which stands for any that is free."""
    if address.port == 0:
        raise ValueError(f"{str(address)!r}: port 0 is a port that nobody knows: name one")
    return address
