"""The next hops to other hosts, as a namespace's routes and neighbours have them."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from pyroute2 import IPRoute
from waiting import until

from edge.xdp import hops
from edge.xdp.hops import Found, barred, find
from lab.links import sysctl, take_frames
from lab.network import Host, Lab
from wire import address

pytestmark = pytest.mark.needs_root
PORT = 7400
INNER = "to-transceiver"


def route(host: Host, *arguments: Any, **keys: Any) -> None:
    """Changes a route of that host's."""

    def change() -> None:
        with IPRoute() as ip:
            ip.route(*arguments, **keys)

    host.inside(change)


def mac(host: Host, interface: str) -> bytes:
    def look() -> str:
        with IPRoute() as ip:
            return str(ip.link("get", ifname=interface)[0].get("address"))

    return bytes.fromhex(host.inside(look).replace(":", ""))


def index(host: Host, interface: str) -> int:
    return host.inside(lambda: socket.if_nametoindex(interface))


def found(lab: Lab, host: str) -> Found:
    return lab.edge.inside(lambda: find({1: (host, PORT)}))[1]


def resolved(lab: Lab, host: str) -> Found:
    """The same, when the kernel has asked for the neighbour, as the edge has it do."""

    def known() -> bool:
        def hint() -> None:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"a hint", (host, PORT))

        lab.edge.inside(hint)
        return found(lab, host).hop is not None

    until(known)
    return found(lab, host)


def test_the_next_hop_is_the_host_itself_where_it_is_on_the_link(lab: Lab) -> None:
    before = found(lab, lab.transceiver.address)
    where = address.pack(lab.transceiver.address, PORT)
    assert (before.sure, before.where) == (False, where) or before.hop is not None
    hop = resolved(lab, lab.transceiver.address).hop
    assert hop is not None
    assert (hop.address, hop.source) == (where, address.pack(lab.edge_inner_address, 0)[:16])
    assert (hop.to, hop.by) == (mac(lab.transceiver, "to-edge"), mac(lab.edge, INNER))
    assert (hop.interface, hop.mtu) == (index(lab.edge, INNER), 1500)


def test_the_next_hop_to_a_host_behind_a_router_is_the_router(lab: Lab) -> None:
    far = "10.99.9.9"
    assert found(lab, far) == Found(None, False, address.pack(far, PORT))
    route(lab.edge, "add", dst=f"{far}/32", gateway=lab.transceiver.address)
    hop = resolved(lab, far).hop
    assert hop is not None
    assert (hop.address, hop.to) == (address.pack(far, PORT), mac(lab.transceiver, "to-edge"))
    assert hop.mtu == 1500
    route(lab.edge, "replace", dst=f"{far}/32", gateway=lab.transceiver.address, metrics={"mtu": 1300})
    changed = found(lab, far).hop
    assert changed is not None
    assert changed.mtu == 1300


def test_over_ipv6_it_is_found_too(lab: Lab) -> None:
    for host, interface, end in ((lab.edge, INNER, 1), (lab.transceiver, "to-edge", 2)):

        def join(interface: str = interface, end: int = end) -> None:
            sysctl(f"net/ipv6/conf/{interface}/accept_dad", "0")
            with IPRoute() as ip:
                at = ip.link_lookup(ifname=interface)[0]
                ip.addr("add", index=at, address=f"2001:db8:9::{end}", prefixlen=64, flags=2)  # IFA_F_NODAD

        host.inside(join)
    hop = resolved(lab, "2001:db8:9::2").hop
    assert hop is not None
    assert hop.address == address.pack("2001:db8:9::2", PORT)
    assert hop.source == address.pack("2001:db8:9::1", 0)[:16]
    assert hop.to == mac(lab.transceiver, "to-edge")


def test_nobody_answers_for_a_neighbour_that_is_not_there_and_the_others_are_found(lab: Lab) -> None:
    resolved(lab, lab.transceiver.address)
    absent = lab.transceiver.address.rpartition(".")[0] + ".77"
    hosts = {1: (absent, PORT), 2: ("no.such.host.invalid", PORT), 3: (lab.transceiver.address, PORT)}
    seen = lab.edge.inside(lambda: find(hosts))
    assert seen[1] == Found(None, False, address.pack(absent, PORT))
    assert seen[2] == Found(None, False, b"")
    assert seen[3].hop is not None


def test_an_interface_that_xdp_cannot_send_by_is_told_apart(lab: Lab) -> None:
    inner = index(lab.edge, INNER)

    def why(at: int, clients: str = lab.edge_interface, inner: str = INNER) -> str:
        return lab.edge.inside(lambda: barred(at, clients, inner))

    assert why(inner, inner="another") == "other_interface"
    assert why(4711) == "no_route"
    assert why(inner, clients="none") == "no_route"
    for host in (lab.client, lab.transceiver):
        assert why(inner) == "no_redirect"
        host.inside(lambda: take_frames("to-edge"))
    assert why(inner) == ""


class Message(dict[str, Any]):
    """What netlink says of a link, as pyroute2 has it."""

    get_attr = dict.get


class Links:
    """An IPRoute of a host with eth0 and the VLAN interfaces ``tagged`` upon it and ``other`` upon another: a kernel
    that tests run on need not have VLANs."""

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get_addr(self, address: str) -> list[Message]:
        return [
            Message(index=index)
            for index, host in ((2, "10.0.0.1"), (5, "10.0.7.1"), (6, "10.0.8.1"))
            if host == address
        ]

    def link_lookup(self, ifname: str) -> list[int]:
        return [2] if ifname == "eth0" else []

    def get_links(self, *wanted: int) -> list[Message]:
        vlan = Message(IFLA_INFO_KIND="vlan")
        links = {
            2: Message(IFLA_IFNAME="eth0"),
            5: Message(IFLA_IFNAME="tagged", IFLA_LINK=2, IFLA_LINKINFO=vlan),
            6: Message(IFLA_IFNAME="other", IFLA_LINK=3, IFLA_LINKINFO=vlan),
        }
        return [links[index] for index in wanted]


def test_an_address_in_a_vlan_of_the_interface_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyroute2.IPRoute", Links)
    hosts = ("10.0.7.1", "10.0.0.1", "10.0.8.1", "10.0.9.1")
    assert [hops.vlan_of(host, "eth0") for host in hosts] == ["tagged", "", "", ""]
    assert hops.vlan_of("10.0.7.1", "eth1") == ""
