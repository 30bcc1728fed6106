"""The next hop to other hosts, as the kernel's routes and neighbours have it: XDP, which sends past the kernel, has to
know it itself."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple

from edge.xdp.features import takes_redirects
from edge.xdp.ways import Hop
from wire import address

__all__ = ["Found", "barred", "find", "vlan_of"]

_MOST_MTU = 0xFFFF
# enum of include/uapi/linux/neighbour.h: of these states a neighbour's address is known, of the latter for sure.
_KNOWN, _SURE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80, 0x02 | 0x40 | 0x80


class Found(NamedTuple):
    """How a host is reached: None where the kernel does not know its neighbour, or no route. A neighbour that is not
    ``sure`` is to be asked for by a packet of the kernel's own, to the 18 bytes ``where``, empty where the name is
    nobody's."""

    hop: Hop | None
    sure: bool
    where: bytes = b""


def find(hosts: Mapping[int, tuple[str, int]]) -> dict[int, Found]:
    """The hop to each host, an address or a name, and UDP port. It asks the kernel and may ask name servers: not to be
    called where others wait."""
    from pyroute2 import IPRoute  # a tenth of a second, and memory, which an edge without other hosts need not have

    found = {}
    with IPRoute() as ip:
        for number, (host, port) in hosts.items():
            where = b""
            try:
                numeric = str(socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0][4][0])
                where = address.pack(numeric, port)
                found[number] = Found(*_find(ip, numeric, where), where)
            except Exception:  # of names, or netlink: there is no way now
                found[number] = Found(None, False, where)
    return found


def barred(interface: int, clients: str, inner: str) -> str:
    """The reason, in a word, why XDP cannot send by the interface of that index, or from there to clients, where those
    two interfaces are the clients' and the one towards other hosts; empty where it can."""
    try:
        if socket.if_indextoname(interface) not in (clients, inner):
            return "other_interface"
        both = interface, socket.if_nametoindex(clients)
    except OSError:
        return "no_route"
    return "" if all(map(takes_redirects, both)) else "no_redirect"


def vlan_of(host: str, interface: str) -> str:
    """The VLAN interface upon ``interface`` that has that address of this host's; empty where none has. XDP sees its
    packets with their tags."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        holders = {each["index"] for each in ip.get_addr(address=host)}
        below = ip.link_lookup(ifname=interface)
        for link in ip.get_links(*holders) if holders else ():
            kind = link.get_attr("IFLA_LINKINFO")
            if kind is not None and kind.get_attr("IFLA_INFO_KIND") == "vlan" and link.get_attr("IFLA_LINK") in below:
                return str(link.get_attr("IFLA_IFNAME"))
    return ""


def _find(ip: object, host: str, where: bytes) -> tuple[Hop | None, bool]:
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
        return None, False
    to, state = known[0]
    hop = Hop(
        where,
        address.pack(source, 0)[:16],
        bytes.fromhex(to.replace(":", "")),
        bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", "")),
        interface,
        min(link.get_attr("IFLA_MTU"), _route_mtu(route)),
    )
    return hop, bool(state & _SURE)


def _route_mtu(route: object) -> int:
    """The MTU that an operator gave the route, where a hop behind the interface takes less than it does."""
    metrics = route.get_attr("RTA_METRICS")  # type: ignore[attr-defined]
    return (metrics.get_attr("RTAX_MTU") if metrics else None) or _MOST_MTU
