"""The reasons why media goes by the workers although it might go past them, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["FALLBACKS", "WHY", "advice"]

# By the label `why` of `firsthop_edge_express`: of a transceiver. Those that an operator chose are not here.
WHY: Final = {
    "generic": "the driver of edge.interface has no XDP of its own: another interface or driver",
    "unheard": "the host's firewall keeps its media back: allow UDP from anywhere to the media address",
    "silent": "a firewall rule keeps its media back now: allow UDP from anywhere to the media address",
    "no_route": "the kernel knows no next hop to it: ping its endpoint from here, look at ip route and ip neigh",
    "other_interface": "the route to it leaves by another interface: name that in edge.inner_interface",
    "no_redirect": "an interface takes no frames of XDP: a veth's peer needs GRO, a NIC a program or another driver",
    "unanswered": 'it does not answer: set transceiver.express = "between" there, and let UDP in on the port of its '
    "endpoint, and here on ports 20000 to 21023",
}

# By the label `why` of `firsthop_xdp_fallback_packets_total`: of a packet whose transceiver has a way.
FALLBACKS: Final = {
    "headers": "media in a VLAN, or behind IPv6 extension headers: take the tag off before edge.interface",
    "checksum": "media without a UDP checksum: reach the transceiver by IPv4",
    "too_long": "packets that do not fit with a head: give edge.inner_interface, and the way there, an MTU of 1280 or "
    "more; what is longer than 1216 bytes always goes so",
    "headroom": 'the NIC of edge.interface leaves no room before a packet: another driver, or edge.express = "auto"',
}


def advice(transceivers: Iterable[str], packets: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each reason with what to do about it, of those why ``transceivers`` have no way and why ``packets`` did not take
    it. Each comes once."""
    for reasons, known in ((transceivers, WHY), (packets, FALLBACKS)):
        for why in dict.fromkeys(reasons):
            if why in known:
                yield why, known[why]
