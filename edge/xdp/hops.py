"""The next hop to other hosts, as the kernel's routes and neighbours have it: XDP, which sends past the kernel, has to
know it itself."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple

from edge.xdp.ways import Hop
from wire import address

__all__ = ["Found", "find"]

# enum of include/uapi/linux/neighbour.h: of these states a neighbour's address is known, of the latter for sure.
_KNOWN, _SURE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80, 0x02 | 0x40 | 0x80


class Found(NamedTuple):
    """How a host is reached: None where the kernel does not know its neighbour, or no route. A neighbour that is not
    ``sure`` is to be asked for by a packet of the kernel's own."""

    hop: Hop | None
    sure: bool


def find(hosts: Mapping[int, tuple[str, int]]) -> dict[int, Found]:
    """The hop to each host, an address or a name, and UDP port. It asks the kernel and may ask name servers: not to be
    called where others wait."""
    from pyroute2 import IPRoute  # a tenth of a second, and memory, which an edge without other hosts need not have

    found = {}
    with IPRoute() as ip:
        for number, (host, port) in hosts.items():
            try:
                numeric = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0][4][0]
                found[number] = _find(ip, str(numeric), port)
            except Exception:  # of names, or netlink: there is no way now
                found[number] = Found(None, sure=False)
    return found


def _find(ip: object, host: str, port: int) -> Found:
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    route = next(iter(ip.route("get", dst=host, family=family)))  # type: ignore[attr-defined]
    interface, source = route.get_attr("RTA_OIF"), route.get_attr("RTA_PREFSRC")
    neighbour = route.get_attr("RTA_GATEWAY") or host
    link = next(iter(ip.get_links(interface)))  # type: ignore[attr-defined]
    known = [
        (each.get_attr("NDA_LLADDR"), each["state"])
        for each in ip.get_neighbours(family=family, ifindex=interface)  # type: ignore[attr-defined]
        if each.get_attr("NDA_DST") == neighbour and each["state"] & _KNOWN and each.get_attr("NDA_LLADDR")
    ]
    if not known or source is None:
        return Found(None, sure=False)
    to, state = known[0]
    hop = Hop(
        address.pack(host, port),
        address.pack(source, 0)[:16],
        bytes.fromhex(to.replace(":", "")),
        bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", "")),
        interface,
        link.get_attr("IFLA_MTU"),
    )
    return Found(hop, bool(state & _SURE))
