"""The express path in XDP: whose media goes past the workers, what is changed of it, and who else may send there."""

from __future__ import annotations

import time
from collections.abc import Iterator

import packets as p
import pytest
import steer_cases as cases
import steer_run
from hypothesis import given
from hypothesis import strategies as st

from edge.relay.classify import Tables, rewritten
from edge.xdp import kernel
from edge.xdp.kernel import XDP_DROP, XDP_PASS, XDP_REDIRECT, FlowStore, Shedding
from edge.xdp.steering import Steering
from wire import address

PORT, TRANSCEIVER, OTHER = 41234, 5, 6
UNPROVED, OTHERS, LOUD_PORT = 40010, 40011, cases.LOUD_PORT
RTP, RTCP = p.datagram(p.rtp(1), sport=cases.KNOWN_PORT), p.datagram(p.rtcp(1), sport=cases.KNOWN_PORT)
RTP_V6 = p.datagram(p.rtp(1), cases.KNOWN_V6, cases.KNOWN_PORT)


@pytest.fixture(scope="module")
def steering() -> Iterator[Steering]:
    """A transceiver that takes media itself with a flow over each IP version, one flow that has not proved itself and
    one that has used up what it may send; and a flow of a transceiver that does not."""
    with steer_run.loaded(limits=steer_run.NO_LIMITS) as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        for host in (p.CLIENT, cases.KNOWN_V6):
            flows.put(address.pack(host, cases.KNOWN_PORT), 1, TRANSCEIVER, True)
        flows.put(address.pack(p.CLIENT, UNPROVED), 1, TRANSCEIVER)
        flows.put(address.pack(p.CLIENT, OTHERS), 1, OTHER, True)
        flows.put(cases.LOUD, 1, TRANSCEIVER, True)
        steer_run.exhaust_flow(steering, cases.LOUD, "media")
        flows.put_ssrc(cases.KNOWN_SSRC, 0)
        steering.express.guard([PORT])
        assert steering.express.put(TRANSCEIVER, PORT)
        yield steering


def passed_by(steering: Steering, packet: bytes) -> tuple[int, str, bytes]:
    """What XDP returned, the label that was counted, and the packet as it left."""
    before = steering.counters()
    xdp, out, _ = kernel.prog_test_run(steering.prog_fd, packet)
    moved = {key[0]: n - before[key] for key, n in steering.counters().items() if n != before[key]}
    (label,) = moved
    assert moved[label] == 1
    return xdp, label, out


def to_port(packet: bytes, port: int = PORT) -> bytes:
    """The packet to another port, with the checksum that it has then."""
    at = 36 if packet[12:14] == b"\x08\0" else 56
    return p.with_udp_sum(packet[:at] + port.to_bytes(2, "big") + packet[at + 2 :])


@pytest.mark.needs_root
@pytest.mark.parametrize("packet", [RTP, RTCP, RTP_V6, p.datagram(b"\x80", sport=cases.KNOWN_PORT)])
def test_media_of_a_proved_flow_goes_to_its_transceiver_with_a_right_checksum(
    steering: Steering, packet: bytes
) -> None:
    xdp, label, out = passed_by(steering, p.with_udp_sum(packet))
    assert (xdp, label) == (XDP_PASS, "flow_expressed")
    assert out == to_port(packet)
    assert p.udp_sum(out) == 0


@pytest.mark.needs_root
def test_no_checksum_stays_none(steering: Steering) -> None:
    assert RTP[40:42] == bytes(2)
    out = passed_by(steering, RTP)[2]
    assert out == RTP[:36] + PORT.to_bytes(2, "big") + RTP[38:]


@pytest.mark.needs_root
def test_a_checksum_never_becomes_the_sign_for_none(steering: Steering) -> None:
    """What is to be 0 becomes 0xffff, which means the same; of all checksums one alone is."""
    critical = (PORT - p.MEDIA_PORT) % 0xFFFF
    flow = address.pack(p.CLIENT, cases.KNOWN_PORT)
    tables = Tables(p.MEDIA_PORT, None, {}, [], (0, 1), {flow: 1}, {}, express={flow: PORT})
    for total in (critical - 1, critical, critical + 1, 1, 0xFFFE, 0xFFFF):
        packet = p.with_udp_sum(RTP, total)
        out = passed_by(steering, packet)[2]
        assert out == rewritten(packet, tables)
        assert (out[40:42] == b"\xff\xff") == (total == critical)


@given(payload=st.binary(min_size=12, max_size=80), v6=st.booleans())
def test_the_twin_mends_checksums_to_what_they_are(payload: bytes, v6: bool) -> None:
    host = cases.KNOWN_V6 if v6 else p.CLIENT
    flow = address.pack(host, cases.KNOWN_PORT)
    tables = Tables(p.MEDIA_PORT, None, {}, [], (0, 1), {flow: 1}, {}, express={flow: PORT})
    packet = p.with_udp_sum(p.datagram(b"\x80" + payload, host, cases.KNOWN_PORT))
    assert rewritten(packet, tables) == to_port(packet)
    assert p.udp_sum(rewritten(packet, tables)) == 0


WORKERS = [
    ("a check", cases.check(cases.UFRAG, cases.KNOWN_PORT), "stun_steered", 1),
    ("a binding response", p.datagram(p.stun(kind=0x0101), sport=cases.KNOWN_PORT), "flow_steered", 1),
    ("DTLS", p.datagram(cases.CLIENT_HELLO, sport=cases.KNOWN_PORT), "flow_steered", 1),
    ("a first byte above RTP's", p.datagram(b"\xc0" * 20, sport=cases.KNOWN_PORT), "flow_steered", 1),
    ("media in a VLAN", p.tagged(RTP, p.CUSTOMER_TAG), "flow_steered", 1),
    ("media in two VLANs", p.tagged(RTP_V6, p.SERVICE_TAG, p.CUSTOMER_TAG), "flow_steered", 1),
    (
        "media behind an extension header",
        p.extended(p.udp(p.rtp(1), cases.KNOWN_PORT), p.DESTINATION, src=cases.KNOWN_V6),
        "flow_steered",
        1,
    ),
    ("media of a flow that has not proved itself", p.datagram(p.rtp(1), sport=UNPROVED), "flow_steered", 1),
    ("media for a transceiver that takes none itself", p.datagram(p.rtp(1), sport=OTHERS), "flow_steered", 1),
    ("media from an unknown address with a known SSRC", p.datagram(p.rtp(cases.KNOWN_SSRC)), "ssrc_steered", 0),
]  # fmt: skip


@pytest.mark.needs_root
@pytest.mark.parametrize(("packet", "label", "cpu"), cases.described(WORKERS))
def test_everything_else_is_the_workers(steering: Steering, packet: bytes, label: str, cpu: int) -> None:
    assert steer_run.run(steering, packet) == (XDP_REDIRECT, label, cpu)


@pytest.mark.needs_root
def test_a_flow_has_its_limits_by_express_too(steering: Steering) -> None:
    assert steer_run.run(steering, p.datagram(p.rtp(1), sport=LOUD_PORT)) == (XDP_DROP, "flow_limited", 1)


@pytest.mark.needs_root
def test_what_a_core_sheds_is_not_what_passes_it_by(steering: Steering) -> None:
    shedding = Shedding(steering.shedding_fd)
    shedding.put(1, 1.0)
    try:
        assert passed_by(steering, RTP)[1] == "flow_expressed"
        assert passed_by(steering, p.datagram(p.rtp(1), sport=OTHERS))[1] == "core_overloaded"
    finally:
        shedding.put(1, 0.0)


TO_THE_PORT = [
    ("a datagram", p.ethernet(p.ipv4(p.udp(p.rtp(1), cases.KNOWN_PORT, PORT)))),
    ("one over IPv6", p.ethernet(p.ipv6(p.udp(p.rtp(1), cases.KNOWN_PORT, PORT)), p.IPV6)),
    ("one in a VLAN", p.tagged(p.ethernet(p.ipv4(p.udp(b"x", dport=PORT))), p.CUSTOMER_TAG)),
    ("one behind options", p.ethernet(p.ipv4(p.udp(b"x", dport=PORT), options=bytes(8)))),
    ("one behind an extension header", p.extended(p.udp(b"x", dport=PORT), p.DESTINATION)),
    ("a first fragment", p.ethernet(p.ipv4(p.udp(b"x", dport=PORT), fragment=p.MORE_FRAGMENTS))),
    ("an empty one", p.ethernet(p.ipv4(p.udp(b"", dport=PORT)))),
    ("one whose length is wrong", p.ethernet(p.ipv4(p.udp(b"x", dport=PORT, length=7)))),
]  # fmt: skip


@pytest.mark.needs_root
@pytest.mark.parametrize("packet", cases.described(TO_THE_PORT))
def test_nobody_else_reaches_the_port(steering: Steering, packet: bytes) -> None:
    assert steer_run.run(steering, packet) == (XDP_DROP, "express_port_refused", 0)


@pytest.mark.needs_root
def test_the_ports_beside_it_are_others_affair(steering: Steering) -> None:
    for port in (PORT - 1, PORT + 1, PORT - 64, PORT + 64, 0, 65535):
        assert steer_run.run(steering, p.ethernet(p.ipv4(p.udp(b"x", dport=port)))) == (XDP_PASS, "other_traffic", 0)


@pytest.mark.needs_root
def test_one_write_takes_a_transceiver_off_and_on(steering: Steering) -> None:
    express = steering.express
    for _ in range(3):
        assert express.remove(TRANSCEIVER)
        assert steer_run.run(steering, RTP) == (XDP_REDIRECT, "flow_steered", 1)
        assert not express.remove(TRANSCEIVER)
        assert express.put(TRANSCEIVER, PORT)
        assert passed_by(steering, RTP)[1] == "flow_expressed"
    assert express.by_transceiver == {TRANSCEIVER: PORT}


@pytest.mark.needs_root
def test_that_a_flow_goes_to_its_transceiver_is_counted_once_in_a_while(steering: Steering) -> None:
    """Often enough to notice that it goes in vain, and not at each packet."""
    flows, flow = FlowStore(steering.flows_fd, steering.ssrcs_fd), address.pack(p.CLIENT, 40021)
    packet = p.datagram(p.rtp(1), sport=40021)
    before = steering.express.seen(TRANSCEIVER)
    for _ in range(3):
        flows.put(flow, 1, TRANSCEIVER, True)  # as one that was not seen lately
        assert kernel.prog_test_run(steering.prog_fd, packet)[0] == XDP_PASS
    assert steering.express.seen(TRANSCEIVER) == before + 3
    began = time.monotonic()
    for _ in range(500):
        assert kernel.prog_test_run(steering.prog_fd, packet)[0] == XDP_PASS
    assert steering.express.seen(TRANSCEIVER) - before - 3 <= 10 * (time.monotonic() - began) + 1
    assert steering.express.client(TRANSCEIVER) == flow
    flows.put(six := address.pack(cases.KNOWN_V6, cases.KNOWN_PORT), 1, TRANSCEIVER, True)
    assert passed_by(steering, RTP_V6)[1] == "flow_expressed"
    assert steering.express.client(TRANSCEIVER) == six
    flows.put(flow, 1, OTHER, True)
    assert kernel.prog_test_run(steering.prog_fd, packet)[0] == XDP_REDIRECT
    assert steering.express.seen(OTHER) == 0
    assert steering.express.client(OTHER) is None
    flows.remove(flow)


@pytest.mark.needs_root
def test_a_flow_that_moves_waits_until_its_new_transceiver_has_proof(steering: Steering) -> None:
    flows, flow = FlowStore(steering.flows_fd, steering.ssrcs_fd), address.pack(p.CLIENT, 40020)
    packet = p.datagram(p.rtp(1), sport=40020)
    flows.put(flow, 1, OTHER, True)
    flows.put(flow, 0, TRANSCEIVER)
    assert steer_run.run(steering, packet) == (XDP_REDIRECT, "flow_steered", 0)
    flows.put(flow, 0, TRANSCEIVER, True)
    assert passed_by(steering, packet)[1] == "flow_expressed"
    flows.remove(flow)
