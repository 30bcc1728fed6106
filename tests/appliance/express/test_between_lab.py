"""The express path between two hosts: media goes past the workers over the cable between them, and calls notice nothing
of whatever happens to it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from calling import flow_gone, goes_on, hang_up, lost_in, spread_calls, whole
from expressing import (
    RTP,
    TRANSCEIVERS,
    all_on,
    another_supervisor,
    both_ways,
    ended_well,
    forwarded,
    leaves,
    options,
    quiet,
    snmp,
    states,
    turned,
    worker_killed,
)
from observing import pins, received, revived, xdp
from waiting import until

from bpf.layout import BACK, NUMBER
from edge.xdp import kernel
from edge.xdp.ways import Ways
from lab.appliance import Appliance
from lab.links import set_checksum_offload, set_checksum_offload_off, take_frames
from lab.network import Host, Lab
from wire.encapsulation import FIRST_PORT, HEAD_BYTES, PORTS, Head, port_of

pytestmark = pytest.mark.needs_root

TX, RX = "firsthop_tx_transceiver_datagrams_total", "firsthop_rx_express_datagrams_total"


@pytest.fixture(scope="module")
def appliance(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    # A veth end takes frames of XDP only where it has a program itself, or GRO; and it leaves checksums to its peer.
    for host in (lab.client, lab.transceiver):
        host.inside(lambda: take_frames("to-edge"))
    lab.transceiver.inside(lambda: set_checksum_offload_off("to-edge"))
    folder = tmp_path_factory.mktemp("between")
    with Appliance(
        folder, lab=lab, express="auto", inner_interface="to-transceiver", one_host=False, **options()
    ) as appliance:
        yield appliance


@pytest.fixture
def house(appliance: Appliance) -> Appliance:
    whole(appliance, *TRANSCEIVERS)
    until(lambda: all_on(appliance))
    return appliance


@contextmanager
def ways(house: Appliance) -> Iterator[Ways]:
    """The maps of the running program."""
    fds = [kernel.pinned(pins(house) / name) for name in ("ways", "inners", "fallbacks")]
    try:
        yield Ways(*fds)
    finally:
        for fd in fds:
            os.close(fd)


def errors(lab: Lab) -> list[int]:
    """What must not move: checksums that were wrong at any end, and clients that were told of a closed port."""
    return [snmp(host, "Udp", "InCsumErrors") for host in (lab.edge, lab.client, lab.transceiver)]


def closed_and_opened(house: Appliance, times: int, calls: int) -> None:
    """Closes the ways of both transceivers, and opens them again."""
    with ways(house) as maps:

        def off() -> None:
            assert [maps.close(number) for number in TRANSCEIVERS] == [True, True]

        def on() -> None:
            for number in TRANSCEIVERS:
                maps.reopen(number)
            both_ways(house, calls)

        turned(house, times, calls, off, on)


def forged(lab: Lab, house: Appliance) -> None:
    """Who does not know a ticket is heard by neither side."""
    fd = kernel.pinned(pins(house) / "backs")
    key, value = next(iter(kernel.BpfMap(fd, NUMBER.size, BACK.size).items()))
    os.close(fd)
    (number,) = NUMBER.unpack(key)
    ticket = BACK.read(value, "ticket")
    wrong = Head(number, bytes(8)).dump() + RTP
    right = Head(number, ticket).dump() + RTP
    refused = xdp(house)["back_refused", "0"]

    def to_the_edge() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(20):
                sock.sendto(wrong, (lab.edge_inner_address, port_of(number)))
                sock.sendto(right, (lab.edge_inner_address, port_of(number)))  # from a port that is not a transceiver's

    lab.transceiver.inside(to_the_edge)
    until(lambda: xdp(house)["back_refused", "0"] >= refused + 40)

    def counted() -> int:
        return sum(received(house, f"media-{n}", RX)["refused"] for n in TRANSCEIVERS)

    before = counted()

    def to_the_transceiver() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(20):
                sock.sendto(wrong, (lab.transceiver.address, 7400))
                sock.sendto(RTP, (lab.transceiver.address, 7400))

    lab.edge.inside(to_the_transceiver)
    until(lambda: counted() == before + 40)


def past_the_workers(house: Appliance) -> None:
    """Media goes past the workers both ways, and they have next to nothing: checks, and reports of a moment."""
    workers = forwarded(house)
    both_ways(house, 200)
    assert forwarded(house) - workers < 60
    for n in TRANSCEIVERS:
        counts = received(house, f"media-{n}", TX)
        assert counts["socket_full"] == counts["unsendable"] == 0


def test_calls_lose_nothing_whatever_happens_at_the_edge(lab: Lab, house: Appliance) -> None:
    wrong = errors(lab)
    calls, _ = spread_calls(lab.client, house, 4)
    both_ways(house, 50)  # by now the first packets, which a worker had, are through
    until(lambda: quiet(house))
    past_the_workers(house)
    closed_and_opened(house, 2, 4)
    forged(lab, house)
    worker_killed(house, "worker-0")
    another_supervisor(house, "killed")
    until(lambda: quiet(house))
    past_the_workers(house)
    ended_well(house, calls, 4)
    assert errors(lab) == wrong


@pytest.mark.trials
def test_a_hand_over_on_one_host_loses_nothing(lab: Lab, house: Appliance) -> None:
    wrong = errors(lab)
    calls, has = spread_calls(lab.client, house, 4)
    both_ways(house)
    leaves(house, has[0], 4)
    until(lambda: all_on(house))
    until(lambda: quiet(house))
    ended_well(house, calls, 4, "media-2")
    assert errors(lab) == wrong


@pytest.mark.trials
def test_calls_go_on_when_their_transceiver_dies(lab: Lab, house: Appliance) -> None:
    wrong = errors(lab)
    calls, has = spread_calls(lab.client, house, 4)
    both_ways(house)
    killed = house.children()["media-1"].pid
    house.children()["media-1"].send_signal(signal.SIGKILL)
    until(lambda: revived(house, "media-1") == has[0] and house.children()["media-1"].pid != killed)
    until(lambda: all_on(house))
    until(lambda: quiet(house))
    goes_on(house, "media-1", "media-2")
    assert hang_up(calls)["calls"]["ok"] == 4
    assert errors(lab) == wrong


def test_a_way_is_closed_while_an_interface_takes_no_frames_of_xdp(lab: Lab, house: Appliance) -> None:
    lab.client.inside(lambda: take_frames("to-edge", False))
    until(lambda: states(house) == {("1", "no_redirect"): 0, ("2", "no_redirect"): 0})
    lab.client.inside(lambda: take_frames("to-edge"))
    until(lambda: all_on(house))


# Where a frame between the hosts has its UDP header, and what is behind it.
UDP_AT, PAYLOAD_AT = 34, 42
AUDIO = 111


def overheard(lab: Lab, n: int) -> tuple[list[bytes], list[bytes]]:
    """So many frames with audio that a transceiver sent between the hosts, and as many that an edge sent."""
    of_edge = range(FIRST_PORT, FIRST_PORT + PORTS)
    sent: list[bytes] = []
    came: list[bytes] = []

    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        sock.bind(("to-edge", 0))
        return sock

    with lab.transceiver.inside(opened) as sock:
        sock.settimeout(60)
        while min(len(sent), len(came)) < n:
            frame = sock.recv(4096)
            source, dest = (int.from_bytes(frame[at : at + 2], "big") for at in (UDP_AT, UDP_AT + 2))
            if frame[23] == socket.IPPROTO_UDP and frame[PAYLOAD_AT + HEAD_BYTES + 1 :][:1] == bytes([AUDIO]):
                if source in of_edge:
                    came.append(frame)
                elif dest in of_edge:
                    sent.append(frame)
    return sent[:n], came[:n]


def send_frames(host: Host, interface: str, frames: list[bytes]) -> None:
    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((interface, 0))
            for frame in frames:
                sock.send(frame)

    host.inside(send)


def test_what_is_read_between_the_hosts_and_sent_again_reaches_nobody(lab: Lab, house: Appliance) -> None:
    """While its call stands SRTP refuses it, at either end; then its ticket has ended."""
    calls, _ = spread_calls(lab.client, house, 2)
    both_ways(house)
    to_edge, to_transceiver = overheard(lab, 20)

    def sent_again() -> None:
        send_frames(lab.transceiver, "to-edge", to_edge)
        send_frames(lab.edge, "to-transceiver", to_transceiver)

    def refused_by_srtp() -> int:
        outcomes = [received(house, f"media-{n}", "firsthop_rx_transceiver_datagrams_total") for n in TRANSCEIVERS]
        return sum(counts["srtp_not_authentic"] for counts in outcomes)

    def without_ticket() -> int:
        return sum(received(house, f"media-{n}", RX)["refused"] for n in TRANSCEIVERS)

    before, unknown = refused_by_srtp(), without_ticket()
    sent_again()
    until(lambda: refused_by_srtp() == before + len(to_transceiver))
    assert without_ticket() == unknown
    goes_on(house, "media-1", "media-2")
    said = hang_up(calls)
    assert (said["calls"]["ok"], lost_in(said["audio"])) == (2, 0)
    assert said["audio"]["packets"]["rejected"] == len(to_edge)

    until(lambda: flow_gone(house))
    back = xdp(house)["back_expressed", "0"]

    def ended() -> bool:
        """Whether the transceivers have forgotten the tickets: they look four times a second."""
        unknown = without_ticket()
        send_frames(lab.edge, "to-transceiver", to_transceiver)
        until(lambda: without_ticket() >= unknown or refused_by_srtp() > before)
        return without_ticket() >= unknown + len(to_transceiver)

    until(ended)
    refused = xdp(house)["back_refused", "0"]
    send_frames(lab.transceiver, "to-edge", to_edge)
    until(lambda: xdp(house)["back_refused", "0"] == refused + len(to_edge))
    assert xdp(house)["back_expressed", "0"] == back
    assert refused_by_srtp() == before + len(to_transceiver)


def test_a_way_is_closed_while_its_host_leaves_checksums_to_hardware_that_it_has_not(
    lab: Lab, house: Appliance
) -> None:
    """What such a host sends is wrong wherever XDP sends it on; so are its answers about the way."""
    calls, _ = spread_calls(lab.client, house, 2)
    both_ways(house)
    told = house.log_file("edge").read_text().count('"why": "unanswered"')
    lab.transceiver.inside(lambda: set_checksum_offload("to-edge", on=True))
    try:
        until(lambda: states(house) == {("1", "unanswered"): 0, ("2", "unanswered"): 0})
        workers = forwarded(house)
        until(lambda: forwarded(house) >= workers + 100)
    finally:
        lab.transceiver.inside(lambda: set_checksum_offload_off("to-edge"))
    until(lambda: all_on(house))
    both_ways(house)
    assert hang_up(calls)["calls"]["ok"] == 2
    assert house.log_file("edge").read_text().count('"why": "unanswered"') == told + len(TRANSCEIVERS)


@pytest.mark.trials
def test_a_way_is_closed_while_nobody_answers(house: Appliance) -> None:
    transceiver = house.processes["transceiver"]
    transceiver.terminate()
    transceiver.wait()
    until(lambda: states(house) == {("1", "unanswered"): 0, ("2", "unanswered"): 0})
    house.start("transceiver")
    until(lambda: all_on(house))


@pytest.mark.trials
def test_it_goes_off_and_on_sixty_times_under_twenty_calls(lab: Lab, house: Appliance) -> None:
    calls, _ = spread_calls(lab.client, house, 20)
    both_ways(house, 200)
    closed_and_opened(house, 60, 20)
    ended_well(house, calls, 20)
