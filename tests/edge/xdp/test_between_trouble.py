"""The express path between hosts with what it cannot send on, in C and in Python: each kind is a worker's, as it was,
and counted by why."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import packets as p
import pytest
import steer_run
from steer_run import COMPILED, CPUS, KEYS

from bpf.layout import BACK, NUMBER
from edge.relay.between import Ticket, Tickets, Way
from edge.relay.classify import Tables, classify, rewritten
from edge.xdp import kernel
from edge.xdp.kernel import XDP_DROP, XDP_PASS, XDP_REDIRECT, FlowStore
from edge.xdp.pins import Pins
from edge.xdp.steering import Steering
from edge.xdp.ways import Backs, Hop
from wire import address
from wire.encapsulation import HEAD_BYTES, MOST_BYTES, PROBE_BYTES, Head, port_of

pytestmark = pytest.mark.needs_root
SOURCES = {4: address.pack("10.9.0.1", 0)[:16], 6: address.pack("2001:db8:9::1", 0)[:16]}
THERE = {4: address.pack("10.9.0.2", 7400), 6: address.pack("2001:db8:9::2", 7400)}
TO, BY = b"to-him", b"from-x"
NARROW = 600
# Each transceiver has a way by a version of IP, of an MTU, and a client.
WAYS = {5: (4, 1500), 6: (4, NARROW), 7: (6, NARROW), 8: (4, 1500)}
CLIENTS = {5: (p.CLIENT, 40005), 6: (p.CLIENT, 40006), 7: (p.CLIENT, 40007), 8: (p.CLIENT_V6, 40008)}
FLOWS = {address.pack(*client): Ticket(100 + n, b"ticket %d" % n, n) for n, client in CLIENTS.items()}


def hop(n: int) -> Hop:
    """How the transceiver ``n`` is reached."""
    version, mtu = WAYS[n]
    return Hop(THERE[version], SOURCES[version], TO, BY, 1, mtu)


TABLES = Tables(
    port=p.MEDIA_PORT,
    address=None,
    keys={},
    slots=[None] * 256,
    cpus=CPUS,
    flows=dict.fromkeys(FLOWS, 1),
    ssrcs={},
    tickets=Tickets(
        FLOWS,
        {n: Way(hop(n).address, hop(n).source, TO, BY, mtu) for n, (_, mtu) in WAYS.items()},
        {},
        frozenset(SOURCES.values()),
    ),
)


@pytest.fixture(scope="module")
def steering() -> Iterator[Steering]:
    with steer_run.loaded() as steering:
        for n in WAYS:
            assert steering.ways.put(n, hop(n), open=True)
        store = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        for client, (number, ticket, n) in FLOWS.items():
            store.put(client, 1, n, True, Head(number, ticket))
        yield steering


def is_a_workers(steering: Steering, packet: bytes, why: str) -> None:
    """Checks that this packet goes to a worker, as it was, and is counted so."""
    before = steering.ways.fallbacks()
    assert classify(packet, TABLES) == ("flow_steered", 1)
    assert rewritten(packet, TABLES) == packet
    assert steer_run.run(steering, packet) == (XDP_REDIRECT, "flow_steered", 1)
    assert fell_back(steering, before) == {why: 1}


def goes_on(steering: Steering, packet: bytes) -> None:
    """Checks that this packet goes to the transceiver."""
    before = steering.ways.fallbacks()
    xdp, out, _ = kernel.prog_test_run(steering.prog_fd, packet)
    assert (xdp, out) == (XDP_REDIRECT, rewritten(packet, TABLES))
    assert out[:12] == TO + BY
    assert fell_back(steering, before) == {}


def fell_back(steering: Steering, before: dict[str, int]) -> dict[str, int]:
    return {why: n - before[why] for why, n in steering.ways.fallbacks().items() if n != before[why]}


def moved(steering: Steering, before: dict[tuple[str, int], int]) -> dict[str, int]:
    return {key[0]: n - before[key] for key, n in steering.counters().items() if n != before[key]}


def media(n: int = 5, size: int = 172) -> bytes:
    """A packet of media of so many bytes behind UDP's header, for the transceiver ``n``."""
    return p.with_udp_sum(p.datagram(p.rtp(1, bytes(size - 12)), *CLIENTS[n]))


@pytest.mark.parametrize(
    "tags",
    [(p.CUSTOMER_TAG,), (p.SERVICE_TAG,), (p.SERVICE_TAG, p.CUSTOMER_TAG)],
    ids=["802.1Q", "802.1ad", "both"],
)
def test_media_in_a_vlan_goes_by_the_worker(steering: Steering, tags: tuple[int, ...]) -> None:
    goes_on(steering, media())
    is_a_workers(steering, p.tagged(media(), *tags), "headers")


def test_media_behind_extension_headers_goes_by_the_worker(steering: Steering) -> None:
    goes_on(steering, media(8))
    is_a_workers(steering, p.extended(p.udp(p.rtp(1), CLIENTS[8][1]), p.DESTINATION), "headers")


@pytest.mark.parametrize(("n", "ip_bytes"), [(6, 20), (7, 40)], ids=["IPv4", "IPv6"])
def test_what_does_not_fit_the_way_with_its_head_goes_by_the_worker(steering: Steering, n: int, ip_bytes: int) -> None:
    fits = NARROW - ip_bytes - 8 - HEAD_BYTES
    goes_on(steering, media(n, fits))
    is_a_workers(steering, media(n, fits + 1), "too_long")


def test_what_might_not_fit_every_network_goes_by_the_worker(steering: Steering) -> None:
    goes_on(steering, media(size=MOST_BYTES))
    is_a_workers(steering, media(size=MOST_BYTES + 1), "too_long")


def test_without_a_way_there_is_nothing_to_fall_back_from(steering: Steering) -> None:
    try:
        steering.ways.remove(5)  # its next hop was never known
        ways = {n: way for n, way in TABLES.tickets.ways.items() if n != 5}
        without = replace(TABLES, tickets=replace(TABLES.tickets, ways=ways))
        assert classify(media(), without) == ("flow_steered", 1)
        before = steering.ways.fallbacks()
        assert steer_run.run(steering, media()) == (XDP_REDIRECT, "flow_steered", 1)
        assert fell_back(steering, before) == {}
    finally:
        assert steering.ways.put(5, hop(5), open=True)


def test_a_nic_without_room_before_a_packet_leaves_media_to_the_worker(steering: Steering) -> None:
    goes_on(steering, media())
    before, counts = steering.ways.fallbacks(), steering.counters()
    assert steer_run.run_without_room(steering, media()) == (XDP_REDIRECT, media())
    assert fell_back(steering, before) == {"headroom": 1}
    assert moved(steering, counts) == {"flow_steered": 1}


def answer() -> bytes:
    """An answer about the way, whole."""
    said = (Head(0, b"a nonce.").dump() + bytes(PROBE_BYTES))[:PROBE_BYTES]
    return p.with_udp_sum(p.ethernet(p.ipv4(p.udp(said, 7400, port_of(0)), "10.9.0.2", "10.9.0.1")))


def test_where_there_is_no_room_for_what_comes_back_no_way_is_opened(steering: Steering) -> None:
    assert kernel.prog_test_run(steering.prog_fd, answer())[:2] == (XDP_PASS, answer())
    counts = steering.counters()
    assert steer_run.run_without_room(steering, answer()) == (XDP_DROP, answer())
    assert moved(steering, counts) == {"back_refused": 1}


@pytest.fixture
def pins() -> Iterator[Pins]:
    held = Pins(Path("/sys/fs/bpf") / f"firsthop-{secrets.token_hex(4)}" / "edge")
    yield held
    if held.folder.exists():
        held.remove()


def test_tickets_outlive_a_table_of_another_size(pins: Pins) -> None:
    earlier = Steering.load(p.MEDIA_PORT, None, KEYS, CPUS, pins=pins, compiled=COMPILED, flow_entries=64)
    assert earlier.ways.put(5, hop(5), open=True)
    head = Backs(earlier.backs_fd, earlier.ways_fd).put(next(iter(FLOWS)), 5)
    assert head is not None
    value = kernel.BpfMap(earlier.backs_fd, NUMBER.size, BACK.size).lookup(NUMBER.pack(head.number))
    earlier.release()
    with steer_run.loaded(pins=pins) as later:
        backs = Backs(later.backs_fd, later.ways_fd)
        assert backs.reaches(5)
        assert backs.knows(head)
        assert kernel.BpfMap(later.backs_fd, NUMBER.size, BACK.size).lookup(NUMBER.pack(head.number)) == value
