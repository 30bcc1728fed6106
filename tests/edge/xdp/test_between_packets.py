"""The express path between hosts in XDP: what goes to transceivers there, and what of theirs goes to clients."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import packets as p
import pytest
import steer_cases as cases
import steer_run
from hypothesis import given
from hypothesis import strategies as st

from bpf.layout import BACK, NUMBER
from edge.relay.between import Back, Ticket, Tickets, Way
from edge.relay.classify import Tables, classify, rewritten
from edge.xdp import kernel
from edge.xdp.kernel import XDP_DROP, XDP_PASS, XDP_REDIRECT, FlowStore
from edge.xdp.steering import Steering
from edge.xdp.ways import Hop
from wire import address
from wire.encapsulation import MOST_BYTES, PROBE_BYTES, Head, port_of

MEDIA = address.pack(p.EDGE, p.MEDIA_PORT)
TO, BY = bytes.fromhex("02aa00000001"), bytes.fromhex("02aa00000002")
PORT = 9400
# Each way by another version of IP, and one that is closed.
THERE = {5: ("10.9.0.2", "10.9.0.1"), 6: ("2001:db8:9::2", "2001:db8:9::1"), 7: ("10.9.0.3", "10.9.0.1")}
WAYS = {
    number: Way(address.pack(host, PORT), address.pack(inner, 0)[:16], TO, BY, open=number != 7)
    for number, (host, inner) in THERE.items()
}
HEADS = {number: Head(1000 + number, bytes([number]) * 8) for number in (*THERE, 8)}
CLIENTS = {number: address.pack(p.CLIENT, 40000 + number) for number in HEADS}
FLOWS = {CLIENTS[number]: Ticket(*head, number) for number, head in HEADS.items()}  # transceiver 8 has no way
BACKS = {
    flow.number: Back(flow.ticket, client, flow.transceiver, p.MACS[6:], p.MACS[:6]) for client, flow in FLOWS.items()
}
UNSEEN = Head(555, b"not seen")
TABLES = Tables(
    port=p.MEDIA_PORT,
    address=MEDIA[:16],
    keys={},
    slots=[None] * 256,
    cpus=steer_run.CPUS,
    flows=dict.fromkeys(FLOWS, 1),
    ssrcs={},
    tickets=Tickets(FLOWS, WAYS, BACKS, frozenset(way.source for way in WAYS.values())),
)


CLIENTS_V6 = {number: address.pack(p.CLIENT_V6, 40000 + number) for number in HEADS}


def over_ipv6(tables: Tables) -> Tables:
    """The same for an edge and clients that have IPv6."""
    six = dict(zip(CLIENTS.values(), CLIENTS_V6.values(), strict=True))
    flows = {six[client]: flow for client, flow in FLOWS.items()}
    backs = {number: replace(back, client=six[back.client]) for number, back in BACKS.items()}
    tickets = replace(tables.tickets, flows=flows, backs=backs)
    return replace(tables, address=address.pack(p.EDGE_V6, 0)[:16], flows=dict.fromkeys(flows, 1), tickets=tickets)


TABLES_V6 = over_ipv6(TABLES)


@pytest.fixture(scope="module")
def steering() -> Iterator[Steering]:
    with filled(TABLES) as steering:
        yield steering


@pytest.fixture(scope="module")
def steering_v6() -> Iterator[Steering]:
    with filled(TABLES_V6) as steering:
        yield steering


@contextmanager
def filled(tables: Tables) -> Iterator[Steering]:
    """The program with these tables, whose clients have all been seen."""
    with steer_run.loaded(where=tables.address, limits=steer_run.NO_LIMITS) as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        backs = kernel.BpfMap(steering.backs_fd, NUMBER.size, BACK.size)
        for number, way in WAYS.items():
            hop = Hop(way.address, way.source, way.to, way.by, 1, way.mtu)
            assert steering.ways.put(number, hop, open=way.open)
        nobody = bytes(6), bytes(6)
        for client, (number, ticket, transceiver) in tables.tickets.flows.items():
            flows.put(client, 1, transceiver, True, Head(number, ticket))
            backs.update(NUMBER.pack(number), BACK.pack(ticket, client[:16], client[16:], *nobody, transceiver, 0))
            kernel.prog_test_run(steering.prog_fd, from_client(p.rtp(1), client))
        client = next(iter(tables.flows))
        unseen = BACK.pack(UNSEEN.ticket, client[:16], client[16:], *nobody, 5, 0)
        backs.update(NUMBER.pack(UNSEEN.number), unseen)
        yield steering


def from_client(payload: bytes, client: bytes = CLIENTS[5]) -> bytes:
    return p.with_udp_sum(p.datagram(payload, *address.unpack(client)))


def frame(payload: bytes, source: str, to: str, sport: int, dport: int) -> bytes:
    """A whole frame, with its checksum."""
    packet = p.udp(payload, sport, dport)
    if ":" in source:
        return p.with_udp_sum(p.ethernet(p.ipv6(packet, source, to), p.IPV6))
    return p.with_udp_sum(p.ethernet(p.ipv4(packet, source, to)))


def from_transceiver(payload: bytes, head: Head = HEADS[5], number: int = 5, sport: int = PORT) -> bytes:
    source, to = THERE[number]
    return frame(head.dump() + payload, source, to, sport, port_of(head.number))


def probe(size: int = PROBE_BYTES) -> bytes:
    return frame((Head(0, b"a nonce.").dump() + bytes(size))[:size], *THERE[5], PORT, port_of(0))


def run(steering: Steering, packet: bytes) -> tuple[int, str, bytes]:
    """What XDP returned, the label that was counted once, and the packet as it left."""
    before = steering.counters()
    xdp, out, _ = kernel.prog_test_run(steering.prog_fd, packet)
    moved = {key[0]: n - before[key] for key, n in steering.counters().items() if n != before[key]}
    ((label, times),) = moved.items()
    assert times == 1
    return xdp, label, out


@pytest.fixture(
    params=[(4, 4), (4, 6), (6, 4), (6, 6)], ids=lambda versions: f"clients-v{versions[0]}-hosts-v{versions[1]}"
)
def pair(request: pytest.FixtureRequest) -> tuple[Steering, int, bytes]:
    """The program, and a transceiver and a client of hers, in each pair of versions of IP."""
    client, host = request.param
    number = 5 if host == 4 else 6
    steering = request.getfixturevalue("steering" if client == 4 else "steering_v6")
    return steering, number, (CLIENTS if client == 4 else CLIENTS_V6)[number]


MEDIA_PACKETS = [p.rtp(1), p.rtp(1, bytes(range(161))), p.rtcp(1), b"\x80"]


def payload_of(out: bytes) -> bytes:
    at = 42 if out[12:14] == b"\x08\0" else 62
    return out[at:]


@pytest.mark.needs_root
@pytest.mark.parametrize("media", MEDIA_PACKETS, ids=["RTP", "odd", "RTCP", "a byte"])
def test_media_goes_to_another_host_with_a_head(pair: tuple[Steering, int, bytes], media: bytes) -> None:
    steering, number, client = pair
    xdp, label, out = run(steering, from_client(media, client))
    assert (xdp, label) == (XDP_REDIRECT, "flow_expressed")
    host, inner = THERE[number]
    head = HEADS[number]
    wanted = frame(head.dump() + media, inner, host, port_of(head.number), PORT)
    assert out[:12] == TO + BY
    assert (len(out), payload_of(out), p.udp_sum(out)) == (len(wanted), head.dump() + media, 0)
    same_headers(out, wanted)


def same_headers(out: bytes, wanted: bytes) -> None:
    """But for what a sender may choose, identification and "do not fragment"."""
    if wanted[12:14] == b"\x08\0":
        assert p.checksum(out[14:34]) == 0
        assert (out[12:18], out[22:24], out[26:40]) == (wanted[12:18], wanted[22:24], wanted[26:40])
    else:
        assert out[12:60] == wanted[12:60]


@pytest.mark.needs_root
@pytest.mark.parametrize("media", MEDIA_PACKETS, ids=["RTP", "odd", "RTCP", "a byte"])
def test_what_comes_back_with_the_ticket_goes_to_the_client(pair: tuple[Steering, int, bytes], media: bytes) -> None:
    steering, number, client = pair
    xdp, label, out = run(steering, from_transceiver(media, HEADS[number], number))
    assert (xdp, label) == (XDP_REDIRECT, "back_expressed")
    host, port = address.unpack(client)
    wanted = frame(media, p.EDGE_V6 if ":" in host else p.EDGE, host, p.MEDIA_PORT, port)
    assert out[:12] == p.MACS[6:] + p.MACS[:6]
    assert (len(out), payload_of(out), p.udp_sum(out)) == (len(wanted), media, 0)
    same_headers(out, wanted)


WORKERS = [
    ("a check", p.datagram(p.stun(kind=0x0101), sport=40005), "flow_steered"),
    ("DTLS", p.datagram(cases.CLIENT_HELLO, sport=40005), "flow_steered"),
    ("media in a VLAN", p.tagged(from_client(p.rtp(1)), p.CUSTOMER_TAG), "flow_steered"),
    ("media that is too long", from_client(p.rtp(1, bytes(MOST_BYTES - 11))), "flow_steered"),
    ("media without a checksum over IPv6", p.with_udp_sum(from_client(p.rtp(1), CLIENTS[6]), 0), "flow_steered"),
    ("media by a way that is closed", from_client(p.rtp(1), CLIENTS[7]), "flow_steered"),
    ("media for a transceiver without a way", from_client(p.rtp(1), CLIENTS[8]), "flow_steered"),
]  # fmt: skip


@pytest.mark.needs_root
@pytest.mark.parametrize(("packet", "label"), [pytest.param(*case, id=words) for words, *case in WORKERS])
def test_what_cannot_go_there_is_a_worker_s_and_as_it_was(steering: Steering, packet: bytes, label: str) -> None:
    assert run(steering, packet) == (XDP_REDIRECT, label, packet)
    assert rewritten(packet, TABLES) == packet


@pytest.mark.needs_root
def test_what_falls_back_is_counted_by_why(steering: Steering) -> None:
    before = steering.ways.fallbacks()
    for _, packet, _ in WORKERS[2:5]:
        run(steering, packet)
    after = steering.ways.fallbacks()
    moved = {why: after[why] - before[why] for why in after}
    assert moved == {"headers": 1, "too_long": 1, "checksum": 1, "headroom": 0}


@pytest.mark.needs_root
def test_no_checksum_stays_none_over_ipv4(steering: Steering) -> None:
    packet = p.with_udp_sum(from_client(p.rtp(1)), 0)
    assert run(steering, packet)[2][40:42] == bytes(2)
    back = p.with_udp_sum(from_transceiver(p.rtp(1)), 0)
    assert run(steering, back)[1:] == ("back_expressed", rewritten(back, TABLES))


STALE = Head(HEADS[5].number, b"a former")
REFUSED = [
    ("a ticket that is not the flow's", from_transceiver(p.rtp(1), STALE)),
    ("the number of no flow", from_transceiver(p.rtp(1), Head(4242, HEADS[5].ticket))),
    ("a ticket from another port", from_transceiver(p.rtp(1), sport=PORT + 1)),
    ("a ticket from another transceiver", from_transceiver(p.rtp(1), HEADS[5], 6)),
    ("a ticket from elsewhere", frame(HEADS[5].dump() + p.rtp(1), "10.9.0.9", "10.9.0.1", PORT, port_of(1005))),
    ("a ticket to another port", frame(HEADS[5].dump() + p.rtp(1), *THERE[5], PORT, port_of(1006))),
    ("the ticket of another transceiver", frame(HEADS[6].dump() + p.rtp(1), *THERE[5], PORT, port_of(1006))),
    ("the ticket of a client who was not seen yet", from_transceiver(p.rtp(1), UNSEEN)),
    ("a head and nothing behind it", from_transceiver(b"")),
    ("less than a head", frame(b"\x01\0\0\0", *THERE[5], PORT, 20000)),
    ("another version", frame(b"\x02" + HEADS[5].dump()[1:] + p.rtp(1), *THERE[5], PORT, port_of(1005))),
    ("more than a transceiver sends so", from_transceiver(p.rtp(1, bytes(MOST_BYTES - 11)))),
    ("an answer whose checksum is not filled in", p.with_udp_sum(probe(), 0x1234)),
    ("an answer without a checksum", p.with_udp_sum(probe(), 0)),
    ("an answer that is too short", probe(PROBE_BYTES - 4)),
    ("an answer that is too long", probe(PROBE_BYTES + 4)),
]  # fmt: skip


@pytest.mark.needs_root
@pytest.mark.parametrize("packet", [pytest.param(packet, id=words) for words, packet in REFUSED])
def test_nobody_else_speaks_for_a_transceiver(steering: Steering, packet: bytes) -> None:
    assert run(steering, packet) == (XDP_DROP, "back_refused", packet)
    assert classify(packet, TABLES) == ("back_refused", 0)


@pytest.mark.needs_root
def test_an_answer_about_the_way_is_the_supervisor_s(steering: Steering) -> None:
    assert run(steering, probe()) == (XDP_PASS, "way_answered", probe())


OTHERS = [
    ("the ports beside ours", frame(b"\1" * 40, *THERE[5], PORT, 19999)),
    ("the ports behind ours", frame(b"\1" * 40, *THERE[5], PORT, 21024)),
    ("our ports at another address", frame(b"\1" * 40, "10.9.0.2", "10.9.0.77", PORT, 20000)),
    ("a fragment", p.ethernet(p.ipv4(p.udp(b"\1" * 40, PORT, 20000), *THERE[5], fragment=p.MORE_FRAGMENTS))),
    ("TCP", p.ethernet(p.ipv4(p.udp(b"\1" * 40, PORT, 20000), *THERE[5], protocol=p.TCP))),
]  # fmt: skip


@pytest.mark.needs_root
@pytest.mark.parametrize("packet", [pytest.param(packet, id=words) for words, packet in OTHERS])
def test_everything_else_is_the_kernel_s(steering: Steering, packet: bytes) -> None:
    assert run(steering, packet) == (XDP_PASS, "other_traffic", packet)


@pytest.mark.needs_root
def test_a_way_that_closes_still_lets_through_what_was_sent_by_it(steering: Steering) -> None:
    media, back = from_client(p.rtp(1)), from_transceiver(p.rtp(1))
    hop = Hop(WAYS[5].address, WAYS[5].source, TO, BY, 1, 1500)
    assert steering.ways.close(5)
    try:
        assert not steering.ways.close(5)
        assert run(steering, media)[1] == "flow_steered"
        assert run(steering, back)[1] == "back_expressed"
        assert steering.ways.remove(5)
        assert run(steering, back)[1] == "back_refused"
    finally:
        assert steering.ways.put(5, hop, open=True)
    assert steering.ways.open == {5: True, 6: True, 7: False}
    assert run(steering, media)[1] == "flow_expressed"


@given(payload=st.binary(max_size=60), number=st.sampled_from([5, 6]), tables=st.sampled_from([TABLES, TABLES_V6]))
def test_the_twin_mends_checksums_to_what_they_are(payload: bytes, number: int, tables: Tables) -> None:
    clients = CLIENTS if tables is TABLES else CLIENTS_V6
    there = rewritten(from_client(b"\x80" + payload, clients[number]), tables)
    assert p.udp_sum(there) == 0
    assert payload_of(there) == HEADS[number].dump() + b"\x80" + payload
    back = rewritten(from_transceiver(b"\x80" + payload, HEADS[number], number), tables)
    assert p.udp_sum(back) == 0
    assert payload_of(back) == b"\x80" + payload


def a_packet(rng: random.Random, tables: Tables) -> bytes:
    client = rng.choice([*tables.flows, address.pack(p.CLIENT, 50000)])
    size = rng.choice([0, 1, 12, 13, 60, 172, 1187, 1188, 1189, 1204, 1205, 1216, 1217, 1440])
    media = rng.choice([p.rtp(1, rng.randbytes(size)), p.rtcp(1), b"\x80" + rng.randbytes(size)])
    number = rng.choice(list(THERE))
    head = rng.choice([HEADS[number], HEADS[number], *HEADS.values(), STALE, UNSEEN])
    made = rng.choice(
        [
            lambda: from_client(media, client),
            lambda: from_transceiver(media, head, number),
            lambda: p.tagged(from_client(media, client), p.CUSTOMER_TAG),
            probe,
        ]
    )()
    if made[12:14] != p.CUSTOMER_TAG.to_bytes(2, "big") and rng.random() < 0.25:
        made = p.with_udp_sum(made, rng.choice([0, 1, 0xFFFF, rng.getrandbits(16)]))
    made += bytes(rng.choice([0, 0, 6]))
    return made if rng.random() < 0.4 else cases.damaged(rng, made)


def seen(steering: Steering, tables: Tables) -> Tables:
    """The tables with clients as the kernel has seen them last."""
    table, backs = kernel.BpfMap(steering.backs_fd, NUMBER.size, BACK.size), {}
    for number in (*tables.tickets.backs, UNSEEN.number):
        ticket, host, port, to, by, transceiver, interface = BACK.unpack(table.lookup(NUMBER.pack(number)) or b"")
        backs[number] = Back(ticket, host + port, transceiver, *((to, by) if interface else (b"", b"")))
    return replace(tables, tickets=replace(tables.tickets, backs=backs))


def agree(steering: Steering, ours: Tables, count: int, seed: int) -> Counter[str]:
    """Checks that C and Python agree on ``count`` packets. Returns how often each verdict came."""
    rng = random.Random(seed)
    packets = (a_packet(rng, ours) for _ in range(count))
    return steer_run.agree(steering, packets, lambda: seen(steering, ours), returned)


def returned(label: str) -> int:
    """What XDP is to do with a packet of that verdict."""
    if label.endswith(("_expressed", "_steered")):
        return XDP_REDIRECT
    return XDP_PASS if label in ("other_traffic", "way_answered") else XDP_DROP


WANTED = {"flow_expressed", "back_expressed", "back_refused", "way_answered", "flow_steered", "other_traffic"}


@pytest.mark.needs_root
@pytest.mark.parametrize("version", [4, 6])
def test_c_and_python_agree(version: int, request: pytest.FixtureRequest) -> None:
    steering = request.getfixturevalue("steering" if version == 4 else "steering_v6")
    assert agree(steering, TABLES if version == 4 else TABLES_V6, 1000, version).keys() >= WANTED


@pytest.mark.needs_root
@pytest.mark.trials
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", [4, 6])
def test_c_and_python_agree_on_a_hundred_thousand_packets(version: int, request: pytest.FixtureRequest) -> None:
    steering = request.getfixturevalue("steering" if version == 4 else "steering_v6")
    times = agree(steering, TABLES if version == 4 else TABLES_V6, 50_000, 10 + version)
    print(dict(times.most_common()))
    assert min(times[label] for label in WANTED) >= 500
