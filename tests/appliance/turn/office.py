"""An office behind a firewall: a host that reaches the lab's client host and whatever is behind it, by TCP to port 443
and by nothing else, unless it is opened for UDP to that port too."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from privileges import nft

from lab.links import sysctl
from lab.network import Host, Lab

FIREWALL = """
table inet office {
    chain out {
        type filter hook output priority filter; policy drop;
        oif lo accept
        tcp dport 443 accept
    }
}
"""
UDP_TOO = "add rule inet office out udp dport 443 accept"


@contextmanager
def an_office(lab: Lab) -> Iterator[Host]:
    """The office of that lab. Its way to the edge leads over the client host."""
    address = lab.client.address.replace("10.77.", "10.79.")
    gateway = address.rpartition(".")[0] + ".2"
    office = Host(f"fh-office-{os.getpid()}-{secrets.token_hex(3)}", address)

    def ip(*argv: str) -> None:
        subprocess.run(["ip", *argv], check=True)

    ip("netns", "add", office.name)
    try:
        ip(
            "-n",
            office.name,
            "link",
            "add",
            "out",
            "type",
            "veth",
            "peer",
            "name",
            "to-office",
            "netns",
            lab.client.name,
        )
        for host, interface, own in ((office, "out", address), (lab.client, "to-office", gateway)):
            ip("-n", host.name, "addr", "add", f"{own}/24", "dev", interface)
            ip("-n", host.name, "link", "set", interface, "up")
        ip("-n", office.name, "link", "set", "lo", "up")
        ip("-n", office.name, "route", "add", "default", "via", gateway)
        ip("-n", lab.edge.name, "route", "replace", f"{address}/32", "via", lab.client.address)
        lab.client.inside(lambda: sysctl("net/ipv4/ip_forward", "1"))
        nft(office, FIREWALL)
        yield office
    finally:
        ip("netns", "del", office.name)
