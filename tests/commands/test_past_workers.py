"""The advice of status and doctor about media that goes by the workers although it might go past them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bpf.layout import FALLBACKS
from edge.xdp import hops
from edge.xdp.hops import Found
from edge.xdp.ways import Hop
from firsthop import examining, past_workers
from firsthop.past_workers import advice
from firsthop.status import Scrape, Status, compare, read
from firsthop.status_view import view
from runtime.address import Address, Endpoint
from runtime.config import Edge
from runtime.families import edge as families
from wire import address

PAGE = 'firsthop_xdp_attached{mode="native"} 1\nfirsthop_edge_express{transceiver="2",why="%s"} %d\n'
FALLBACK = 'firsthop_xdp_fallback_packets_total{why="%s"} %d\n'


def seen(why: str, fallbacks: dict[str, tuple[int, int]]) -> tuple[Status, str]:
    """The status, and what a person sees of it, of an edge that says ``why`` a transceiver has no way, between two
    looks at these counts of packets ten seconds apart."""
    looks = []
    for at in (0, 1):
        page = PAGE % (why, not why) + "".join(FALLBACK % (each, counts[at]) for each, counts in fallbacks.items())
        looks.append({"supervisor": Scrape(10.0 * at, read(page))})
    status = compare(*looks, {})
    with io.StringIO() as text:
        Console(file=text, width=80, force_terminal=False).print(view(status))
        return status, " ".join(text.getvalue().split())


@pytest.mark.parametrize("why", past_workers.WHY)
def test_what_to_do_is_told_where_a_transceiver_has_no_way(why: str) -> None:
    _, text = seen(why, {})
    assert f"express to transceivers: none; not 2 ({why})" in text
    assert f"{why}: {past_workers.WHY[why]}" in text


def test_what_somebody_chose_needs_no_advice() -> None:
    _, text = seen("off", {})
    assert "not 2 (off)" in text
    assert "off:" not in text


def test_packets_that_fall_back_are_told_while_they_do() -> None:
    status, text = seen("", {"headers": (5, 5), "too_long": (0, 120), "checksum": (0, 0)})
    assert status.xdp is not None
    assert (status.xdp.fallbacks["headers"].total, status.xdp.fallbacks["too_long"].per_s) == (5, 12)
    assert f"too_long 12/s: {past_workers.FALLBACKS['too_long']}" in text
    assert "headers" not in text
    assert "checksum" not in text


def test_each_reason_is_told_once() -> None:
    told = list(advice(["silent", "", "silent", "off", "no_route"], ["headers"]))
    assert [why for why, _ in told] == ["silent", "no_route", "headers"]


def test_every_reason_is_one_that_the_edge_counts() -> None:
    assert past_workers.FALLBACKS.keys() == set(FALLBACKS)
    assert past_workers.WHY.keys() < set(families.EXPRESS.labels["why"])


def edge(**more: object) -> Edge:
    """An edge with a transceiver of its own host, and four of others."""
    far = [{"id": n, "endpoint": Endpoint(f"tcp://10.0.0.{n}:7400")} for n in (2, 3, 4, 5)]
    here = {"id": 1, "endpoint": Endpoint("ipc:///run/t.sock")}
    fields = {"interface": "eth0", "inner_interface": "eth1", "express": "between", "media": Address("192.0.2.1:3478")}
    return Edge(transceivers=[here, *far], **{**fields, **more})


@pytest.mark.parametrize(
    ("express", "inner", "between"),
    [
        ("auto", "", False),
        ("auto", "eth1", True),
        ("between", "", True),
        ("between", "eth1", True),
        ("off", "eth1", False),
    ],
)
def test_media_goes_between_hosts_where_the_interface_to_them_is_named(express: str, inner: str, between: bool) -> None:
    assert edge(express=express, inner_interface=inner).between_hosts is between


def hop(n: int, interface: int = 3, mtu: int = 1500) -> Found:
    where = address.pack(f"10.0.0.{n}", 7400)
    return Found(Hop(where, bytes(16), bytes(6), bytes(6), interface, mtu), True, where)


def test_doctor_looks_for_the_way_to_each_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {2: hop(2), 3: Found(None, False), 4: hop(4, interface=4), 5: hop(5, mtu=1200)}
    asked: list[object] = []

    def find(hosts: dict[int, tuple[str, int]]) -> dict[int, Found]:
        asked.append(hosts)
        return found

    monkeypatch.setattr(hops, "find", find)
    monkeypatch.setattr(
        hops, "barred", lambda at, clients, inner: "" if (at, clients, inner) == (3, "eth0", "eth1") else "no_redirect"
    )
    monkeypatch.setattr(
        hops, "vlan_of", lambda host, interface: "eth0.7" if (host, interface) == ("192.0.2.1", "eth0") else ""
    )
    vlan, *ways = examining.between(edge())
    assert asked == [{n: (f"10.0.0.{n}", 7400) for n in found}]
    assert (vlan.state, "eth0.7" in vlan.seen, vlan.what_to_do) == ("warning", True, past_workers.FALLBACKS["headers"])
    assert [(each.subject, each.state) for each in ways] == [
        ("way to transceiver 2", "ok"),
        *((f"way to transceiver {n}", "warning") for n in (3, 4, 5)),
    ]
    assert [each.what_to_do for each in ways] == [
        "",
        past_workers.WHY["no_route"],
        past_workers.WHY["no_redirect"],
        past_workers.FALLBACKS["too_long"],
    ]


@pytest.mark.parametrize(
    "more",
    [{"express": "off"}, {"express": "auto", "inner_interface": ""}, {"interface": ""}],
    ids=["off", "on one host", "no XDP"],
)
def test_doctor_looks_for_no_way_that_is_not_to_be_used(more: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hops, "find", lambda _: pytest.fail("it looked"))
    assert list(examining.between(edge(**more))) == []
