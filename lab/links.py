"""The plumbing of a network on one machine: namespaces that a thread enters, and the veth pairs that join them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute, netns
from pyroute2.ethtool.ioctl import IoctlEthtool
from pyroute2.netlink.exceptions import NetlinkError

__all__ = [
    "LabError",
    "address",
    "await_links",
    "checksum_offload",
    "delete_links",
    "entered",
    "home",
    "in_thread",
    "join",
    "set_checksum_offload",
    "set_checksum_offload_off",
    "sysctl",
    "take_frames",
    "up",
]

T = TypeVar("T")

IFF_UP = 1
LINK_S = 5.0


class LabError(RuntimeError):
    """The lab cannot be made; one line that says what is missing."""


def checksum_offload(interface: str) -> bool:
    """Whether ``interface``, on the calling thread's host, leaves transmit checksums to the hardware."""
    ethtool = IoctlEthtool(interface)
    try:
        return bool(ethtool.get_offload_flags()["tx-checksumming"])
    finally:
        ethtool.close()


def set_checksum_offload(interface: str, *, on: bool) -> None:
    """Has ``interface``, on the calling thread's host, leave transmit checksums to the hardware, or fill them in."""
    ethtool = IoctlEthtool(interface)
    try:
        ethtool.set_offload_flag("tx-checksumming", int(on))
    finally:
        ethtool.close()


def set_checksum_offload_off(interface: str) -> None:
    """Has ``interface`` fill them in. Raises LabError where it does not."""
    set_checksum_offload(interface, on=False)
    if checksum_offload(interface):
        raise LabError(f"transmit checksum offload of {interface} cannot be switched off: XDP would lose every packet")


def take_frames(interface: str, takes: bool = True) -> None:
    """Has the other end of this veth send frames of XDP, or not: it does where this one receives by GRO."""
    ethtool = IoctlEthtool(interface)
    try:
        ethtool.set_offload_flag("generic-receive-offload", int(takes))
    finally:
        ethtool.close()


def in_thread(work: Callable[[], T]) -> T:
    """Calls ``work`` in a thread of its own: setns moves only that thread, and pyroute2's blocking interface
    refuses to run in one that has an event loop running."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@contextmanager
def home() -> Iterator[None]:
    """Returns the calling thread, at the end, to the namespace that it was in at the beginning."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        yield
    finally:
        netns.setns(home, flags=0)
        os.close(home)


@contextmanager
def entered(path: str) -> Iterator[None]:
    with home():
        netns.setns(path, flags=0)
        yield


def join(a: tuple[str, str], b: tuple[str, str], *, index: int) -> None:
    """Makes a veth pair between two (namespace, interface); the first end gets ``index``."""
    # Ends of equal index look like one physical device to the kernel, which then takes up to a second to notice
    # that its link is up, and drops what is sent meanwhile.
    with IPRoute() as ip:
        peer = {"ifname": b[1], "net_ns_fd": b[0]}
        ip.link("add", ifname=a[1], kind="veth", net_ns_fd=a[0], index=index, peer=peer)


def await_links(ip: IPRoute) -> None:
    """Waits until every link that is switched on also carries packets."""
    deadline = time.monotonic() + LINK_S
    while any(link["flags"] & IFF_UP and link.get("operstate") == "DOWN" for link in ip.get_links()):
        if time.monotonic() > deadline:
            raise LabError(f"a link of the lab did not come up within {LINK_S} s")
        time.sleep(0.005)


def up(ip: IPRoute, interface: str) -> int:
    index: int = ip.link_lookup(ifname=interface)[0]
    ip.link("set", index=index, state="up")
    return index


def address(ip: IPRoute, interface: str, address: str) -> None:
    # No link-local address, so no router solicitation or multicast report is among the packets that tests count.
    with suppress(FileNotFoundError):
        sysctl(f"net/ipv6/conf/{interface}/addr_gen_mode", "1")
    ip.addr("add", index=up(ip, interface), address=address, prefixlen=24)


def sysctl(name: str, value: str) -> None:
    Path("/proc/sys", name).write_text(value)


def delete_links(names: Iterable[str]) -> None:
    with IPRoute() as ip:
        for name in names:
            for index in ip.link_lookup(ifname=name):
                with suppress(NetlinkError):  # its other end was removed at the same moment
                    ip.link("del", index=index)
