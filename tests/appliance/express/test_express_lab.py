"""The express path on one host: media goes past the workers, and calls notice nothing of whatever happens to it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, product

import packets as p
import psutil
import pytest
from calling import goes_on, hang_up, kill_the_supervisor, lost_in, spread_calls, start_call, whole
from expressing import (
    RTP,
    TRANSCEIVERS,
    all_on,
    another_supervisor,
    ended_well,
    forwarded,
    leaves,
    options,
    snmp,
    states,
    turned,
    worker_killed,
)
from observing import expressed as at_socket
from observing import moved, pins, received, revived, xdp
from privileges import nft
from waiting import until

from bpf.layout import FLOW, FLOW_KEY, SSRC, U32
from edge.xdp import kernel
from edge.xdp.express_ports import ExpressPorts
from edge.xdp.pins import Pins
from lab.appliance import Appliance
from lab.links import set_checksum_offload
from lab.network import Lab
from wire import address, keys, stun, ufrag

pytestmark = pytest.mark.needs_root
BPF_HASH = 1  # enum bpf_map_type


@pytest.fixture(scope="module")
def appliance(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    folder = tmp_path_factory.mktemp("express")
    with Appliance(folder, lab=lab, one_host=True, express="auto", **options()) as appliance:
        yield appliance


@pytest.fixture
def house(appliance: Appliance) -> Appliance:
    whole(appliance, *TRANSCEIVERS)
    until(lambda: all_on(appliance))
    return appliance


def expressed(house: Appliance) -> int:
    return xdp(house)["flow_expressed", "0"]


def by_express(house: Appliance, packets: int = 100) -> None:
    """Returns when so many packets more have come past the workers."""
    before = expressed(house)
    until(lambda: expressed(house) >= before + packets)


@contextmanager
def ports(house: Appliance) -> Iterator[ExpressPorts]:
    """The maps of the running program."""
    fds = [kernel.pinned(pins(house) / name) for name in ("express", "express_ports")]
    try:
        yield ExpressPorts(*fds)
    finally:
        for fd in fds:
            os.close(fd)


def errors(lab: Lab) -> list[int]:
    """What must not move: checksums that were wrong at either end, and clients that were told of a closed port."""
    wrong = [snmp(host, "Udp", "InCsumErrors") for host in (lab.edge, lab.client)]
    return [*wrong, snmp(lab.edge, "Icmp", "OutDestUnreachs")]


TX, TAKEN = "firsthop_tx_transceiver_datagrams_total", "firsthop_rx_express_datagrams_total"


def past_the_workers(house: Appliance) -> None:
    """Media goes past the workers both ways, and they have next to nothing: checks, and reports of a moment."""
    sent = {n: received(house, f"media-{n}", TX)["expressed"] for n in TRANSCEIVERS}
    workers = forwarded(house)
    by_express(house, 200)
    assert forwarded(house) - workers < 60
    for n in TRANSCEIVERS:
        counts = received(house, f"media-{n}", TX)
        assert counts["expressed"] > sent[n]
        assert counts["socket_full"] == counts["unsendable"] == 0
        assert received(house, f"media-{n}", "firsthop_rx_express_socket_datagrams_total") == {"express_full": 0}


def toggled(house: Appliance, times: int, calls: int) -> None:
    """Takes the transceivers off the express path, by a write for each, and puts them on it again."""
    with ports(house) as maps:
        there = maps.by_transceiver
        assert there.keys() == set(TRANSCEIVERS)

        def off() -> None:
            for number in there:
                assert maps.remove(number)

        def on() -> None:
            for number, port in there.items():
                assert maps.put(number, port)
            by_express(house, calls)

        turned(house, times, calls, off, on)


def sent_to_the_port(lab: Lab, house: Appliance) -> None:
    """What others send to a transceiver's own port reaches nobody."""
    with ports(house) as maps:
        port = maps.by_transceiver[1]
    before = xdp(house)["express_port_refused", "0"]

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(50):
                sock.sendto(RTP, (lab.edge.address, port))

    lab.client.inside(send)
    until(lambda: xdp(house)["express_port_refused", "0"] == before + 50)


def sent_in_a_call_s_name(lab: Lab, house: Appliance) -> None:
    """XDP takes an address for a call's that somebody else writes on his packets; the call does not."""
    fd = kernel.pinned(pins(house) / "flows")
    flow = next(iter(kernel.BpfMap(fd, FLOW_KEY.size, FLOW.size).items()))[0]
    os.close(fd)
    segment = flow[16:18] + (3478).to_bytes(2, "big") + (8 + len(RTP)).to_bytes(2, "big") + bytes(2) + RTP
    refused = ("firsthop_rx_transceiver_datagrams_total", "srtp_not_authentic")

    def count() -> float:
        return sum(house.metrics(f"media-{n}")[refused] for n in TRANSCEIVERS)

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as sock:
            for _ in range(20):
                sock.sendto(segment, (lab.edge.address, 0))

    before = count()
    lab.client.inside(send)
    until(lambda: count() == before + 20)


def flows(house: Appliance) -> list[tuple[str, int]]:
    """The addresses of callers, as XDP knows them."""
    fd = kernel.pinned(pins(house) / "flows")
    try:
        return [address.unpack(key) for key, _ in kernel.BpfMap(fd, FLOW_KEY.size, FLOW.size).items()]
    finally:
        os.close(fd)


def an_ssrc(house: Appliance) -> int:
    """The SSRC of one of the callers."""
    fd = kernel.pinned(pins(house) / "ssrcs")
    try:
        return int(SSRC.unpack(next(iter(kernel.BpfMap(fd, SSRC.size, U32.size).items()))[0])[0])
    finally:
        os.close(fd)


def send_raw(lab: Lab, packets: Sequence[bytes]) -> None:
    """Sends packets with whatever they have for a source, from the client's host."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            for packet in packets:
                sock.sendto(packet, (lab.edge.address, 0))

    lab.client.inside(send)


def past_the_workers_at_sockets(house: Appliance) -> int:
    return sum(sum(at_socket(house, f"media-{n}").values()) for n in TRANSCEIVERS)


def test_nothing_that_others_send_reaches_the_socket_of_a_transceiver(lab: Lab, house: Appliance) -> None:
    """What came to the sockets in the end is what XDP passed of flows that have proved themselves, packet by packet."""
    at_xdp, at_sockets, before = expressed(house), past_the_workers_at_sockets(house), xdp(house)
    calls, _ = spread_calls(lab.client, house, 2)
    by_express(house)
    with ports(house) as maps:
        there = maps.by_transceiver
    key_id, key = next(iter(keys.load(house.config_file.parent / "cluster.toml").ufrag.items()))
    good = stun.binding_request(f"{ufrag.seal(1, key_id, key)}:none".encode(), b"not the password", tie_breaker=1)
    invented = stun.binding_request(f"{ufrag.seal(1, key_id, bytes(16))}:none".encode(), b"none", tie_breaker=1)
    record = b"\x17\xfe\xfd" + bytes(10) + bytes(120)
    others = [good, invented, p.stun(kind=0x0101), b"\x16\xfe\xfd" + bytes(150), record, b"\x04" + bytes(31), b""]
    media = [p.rtp(1), p.rtp(an_ssrc(house)), p.rtcp(1), p.rtcp(an_ssrc(house))]
    strangers = [("198.18.7.7", 4000), (lab.client.address, 4001), ("127.0.0.1", 4002), (lab.edge.address, 3478)]
    callers = flows(house)
    assert len(callers) == 2
    edge = lab.edge.address
    to_ports = [
        p.ipv4(p.udp(payload, source[1], port), source[0], edge, fragment=fragment)
        for payload, source, port, fragment in product(
            others + media, strangers + callers, there.values(), (0, p.MORE_FRAGMENTS)
        )
    ]
    # Whatever may follow a first fragment, whose datagram is then never whole.
    rest = [p.ipv4(media[0][:160], callers[0][0], edge, fragment=1)]
    to_shared = [(others + media, strangers), (others, callers)]  # media in a caller's name is for SRTP to refuse
    send_raw(lab, to_ports + rest)
    for payloads, sources in to_shared:
        send_raw(lab, [p.ipv4(p.udp(each, at), host, edge) for each, (host, at) in product(payloads, sources)])
    until(lambda: xdp(house)["express_port_refused", "0"] == before["express_port_refused", "0"] + len(to_ports))
    by_express(house, 200)
    ended_well(house, calls, 2)
    assert xdp(house)["express_port_refused", "0"] == before["express_port_refused", "0"] + len(to_ports)
    assert moved(before, xdp(house))["unknown_flow", "0"] > 0
    until(lambda: not flows(house))
    until(lambda: past_the_workers_at_sockets(house) - at_sockets == expressed(house) - at_xdp)


def test_a_caller_whose_own_packets_are_wrong_puts_nobody_off_the_path(lab: Lab, house: Appliance) -> None:
    """Where nobody else speaks, the way looks silent; the edge puts a packet there that is right, and it arrives."""
    calls, _ = spread_calls(lab.client, house, 2)
    by_express(house)
    caller = psutil.Process(calls.pid)
    caller.suspend()
    try:
        segments = [(p.udp(RTP, port), host) for host, port in flows(house)]
        wrong = [p.ipv4(each[:6] + b"\x12\x34" + each[8:], host, lab.edge.address) for each, host in segments]
        errors_before, seen_before = errors(lab), expressed(house)

        def arrived() -> list[int]:
            outcomes = [received(house, f"media-{n}", "firsthop_rx_transceiver_datagrams_total") for n in TRANSCEIVERS]
            return [counts["other"] for counts in outcomes]

        before = arrived()

        def twice() -> bool:
            send_raw(lab, wrong)
            return all(now >= was + 2 for now, was in zip(arrived(), before, strict=True))

        until(twice)
        assert all_on(house)
        assert expressed(house) > seen_before
        assert errors(lab)[0] > errors_before[0]
    finally:
        caller.resume()
    past_the_workers(house)
    goes_on(house, "media-1", "media-2")
    assert hang_up(calls)["calls"]["ok"] == 2


def test_media_whose_checksum_is_left_to_hardware_is_heard_past_the_workers(lab: Lab, house: Appliance) -> None:
    """As of a veth, whose mark for that a CPUMAP loses, so that checks do not arrive meanwhile."""
    calls, _ = spread_calls(lab.client, house, 2)
    by_express(house)
    lab.client.inside(lambda: set_checksum_offload("to-edge", on=True))
    try:
        goes_on(house, "media-1", "media-2")
    finally:
        lab.client.inside(lambda: set_checksum_offload("to-edge", on=False))
    ended_well(house, calls, 2)


def test_calls_lose_nothing_whatever_happens_at_the_edge(lab: Lab, house: Appliance) -> None:
    wrong = errors(lab)
    calls, _ = spread_calls(lab.client, house, 4)
    by_express(house, 50)  # by now the first packets, which a worker had, are through
    past_the_workers(house)
    toggled(house, 3, 4)
    sent_to_the_port(lab, house)
    sent_in_a_call_s_name(lab, house)
    worker_killed(house, "worker-0")
    for how in ("anew", "killed"):
        another_supervisor(house, how)
        past_the_workers(house)
    ended_well(house, calls, 4)
    assert errors(lab) == wrong


@pytest.mark.trials
def test_it_goes_off_and_on_sixty_times_under_twenty_calls(lab: Lab, house: Appliance) -> None:
    calls, _ = spread_calls(lab.client, house, 20)
    toggled(house, 60, 20)
    ended_well(house, calls, 20)


@pytest.mark.trials
def test_twenty_supervisors_take_it_over(lab: Lab, house: Appliance) -> None:
    calls, _ = spread_calls(lab.client, house, 4)
    for _, how in zip(range(20), cycle(("anew", "killed", "left")), strict=False):
        another_supervisor(house, how)
        by_express(house)
    ended_well(house, calls, 4)


def test_calls_go_on_when_their_transceiver_dies_or_leaves(lab: Lab, house: Appliance) -> None:
    wrong = errors(lab)
    calls, has = spread_calls(lab.client, house, 4)
    by_express(house)
    killed = house.children()["media-1"].pid
    house.children()["media-1"].send_signal(signal.SIGKILL)
    until(lambda: revived(house, "media-1") == has[0] and house.children()["media-1"].pid != killed)
    until(lambda: all_on(house))
    past_the_workers(house)
    leaves(house, has[0], 4)
    until(lambda: all_on(house))
    by_express(house, 200)
    goes_on(house, "media-2")
    assert hang_up(calls)["calls"]["ok"] == 4
    assert errors(lab) == wrong


def test_a_hand_over_loses_nothing(lab: Lab, house: Appliance) -> None:
    calls, has = spread_calls(lab.client, house, 4)
    past_the_workers(house)
    leaves(house, has[0], 4)
    goes_on(house, "media-2")
    by_express(house, 200)
    ended_well(house, calls, 4, "media-2")


def test_a_firewall_rule_that_is_made_later_costs_seconds_and_not_the_calls(lab: Lab, house: Appliance) -> None:
    calls, _ = spread_calls(lab.client, house, 4)
    by_express(house)
    with ports(house) as maps:
        port = maps.by_transceiver[1]
    nft(lab.edge, f"table inet late {{ chain in {{ type filter hook input priority 0; udp dport {port} drop; }}; }}")
    try:
        until(lambda: states(house) == {("1", "silent"): 0, ("2", ""): 1})
        goes_on(house, "media-1", "media-2")
        by_express(house)
    finally:
        nft(lab.edge, "delete table inet late")
    assert house.log_file("edge").read_text().count("no longer reaches a transceiver") == 1
    another_supervisor(house, "anew")  # which tries at once
    past_the_workers(house)
    assert hang_up(calls)["calls"]["ok"] == 4


@pytest.mark.parametrize("tables", ["of another shape", "not there"])
def test_an_edge_takes_over_from_one_whose_program_had_other_tables(lab: Lab, house: Appliance, tables: str) -> None:
    """Until transceivers have come again, media goes by the workers."""
    calls, _ = spread_calls(lab.client, house, 4)
    by_express(house)
    kill_the_supervisor(house)
    times = house.log_file("edge").read_text().count('"ready"')
    if tables == "not there":
        for name in ("express", "express_ports", "ways", "backs", "inners", "fallbacks"):
            (pins(house) / name).unlink()
    else:
        other = kernel.create_map("express", BPF_HASH, U32.size, U32.size, 1024)
        held = Pins(pins(house))
        held.put("express", other)
        held.close()
        os.close(other)
    house.start("edge")
    until(lambda: house.log_file("edge").read_text().count('"ready"') > times)
    until(lambda: all_on(house))
    past_the_workers(house)
    sent_to_the_port(lab, house)
    ended_well(house, calls, 4)


def test_without_it_the_same_house_goes_by_the_workers(lab: Lab, house: Appliance) -> None:
    """The last of these: it changes the configuration, under calls."""
    calls = start_call(lab.client, house, "-n", "2", "--model", "echo", "--duration", "600")
    by_express(house, 50)
    text = house.config_file.read_text()
    house.config_file.write_text(
        text.replace('express = "auto"', 'express = "off"', 1)
    )  # the edge's; a transceiver has none
    house.processes["edge"].send_signal(signal.SIGHUP)
    until(lambda: states(house) == {("1", "off"): 0, ("2", "off"): 0})
    workers, before = forwarded(house), expressed(house)
    until(lambda: forwarded(house) > workers + 100)
    assert expressed(house) == before
    said = hang_up(calls)
    assert (said["calls"]["ok"], lost_in(said["audio"])) == (2, 0)
