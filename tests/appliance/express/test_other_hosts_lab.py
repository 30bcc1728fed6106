"""The express path to transceivers on two other hosts, one of them behind a router: calls move from host to host, and
lose nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest
from calling import hang_up, lost_in, start_call, whole
from expressing import all_on, both_ways, options, quiet, snmp, states
from observing import cores, logged, sessions_of, transceiver_of, xdp
from pyroute2 import IPRoute
from waiting import DEADLINE_S, until

from lab.appliance import Appliance
from lab.links import set_checksum_offload_off, sysctl, take_frames
from lab.network import Host, Lab

pytestmark = pytest.mark.needs_root
LAB_TRANSCEIVERS = 2
CALLS = 4
SESSIONS = "firsthop_transceiver_sessions"
HEARD = ("firsthop_rx_transceiver_datagrams_total", "audio")


def route(host: Host, to: str, by: str) -> None:
    """Has what the host sends to that address go by this neighbour."""

    def change() -> None:
        with IPRoute() as ip:
            ip.route("replace", dst=f"{to}/32", gateway=by)

    host.inside(change)


@pytest.fixture(scope="module")
def appliance(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    second = lab.transceiver_2
    assert second is not None
    for host in (lab.client, lab.transceiver):
        host.inside(lambda: take_frames("to-edge"))
    lab.transceiver.inside(lambda: set_checksum_offload_off("to-edge"))
    second.inside(lambda: set_checksum_offload_off("to-transceiver"))
    # The first host is the router between the edge and the second one.
    lab.transceiver.inside(lambda: sysctl("net/ipv4/ip_forward", "1"))
    router = lab.transceiver.inside(lambda: address_of("to-second"))
    route(lab.edge, second.address, lab.transceiver.address)
    route(second, lab.edge_inner_address, router)
    folder = tmp_path_factory.mktemp("other-hosts")
    both = {**options(), "transceiver_cores": cores()[:1]}
    with Appliance(
        folder, lab=lab, express="between", inner_interface="to-transceiver", one_host=False, **both
    ) as appliance:
        yield appliance


def address_of(interface: str) -> str:
    with IPRoute() as ip:
        return str(ip.get_addr(index=ip.link_lookup(ifname=interface)[0])[0].get_attr("IFA_ADDRESS"))


def at_second(house: Appliance, name: str | tuple[str, ...]) -> int:
    """A figure of the process on the second host; -1 where it does not tell."""
    key = name if isinstance(name, tuple) else (name,)
    with suppress(OSError):
        return int(house.metrics("media-2", "transceiver-2")[key])
    return -1


@pytest.fixture
def house(appliance: Appliance) -> Appliance:
    whole(appliance, 1)
    until(lambda: at_second(appliance, SESSIONS) == 0)
    until(lambda: all_on(appliance))
    return appliance


def calls_at_both(lab: Lab, house: Appliance) -> tuple[subprocess.Popen[bytes], int]:
    """Calls that stand, and how many of them the first host has: neither has none."""
    for _ in range(10):
        calls = start_call(lab.client, house, "-n", str(CALLS), "--model", "echo", "--duration", "600")
        until(lambda: (sessions_of(house, "media-1") or 0) + at_second(house, SESSIONS) == CALLS)
        has = sessions_of(house, "media-1") or 0
        if 0 < has < CALLS:
            return calls, has
        hang_up(calls)
        until(lambda: sessions_of(house, "media-1") == 0 == at_second(house, SESSIONS))
    raise AssertionError("one host gets no calls")


def test_calls_that_move_to_another_host_lose_nothing(lab: Lab, house: Appliance) -> None:
    def errors() -> list[int]:
        hosts = (lab.edge, lab.client, lab.transceiver, lab.transceiver_2)
        return [snmp(host, "Udp", "InCsumErrors") for host in hosts if host is not None]

    wrong = errors()
    calls, has = calls_at_both(lab, house)
    until(lambda: quiet(house))
    refused = xdp(house)["back_refused", "0"]
    house.children()["media-1"].send_signal(signal.SIGTERM)
    until(lambda: len(logged(house, "moved")) == has)
    until(lambda: sessions_of(house, "media-1") == 0 and at_second(house, SESSIONS) == CALLS)
    until(lambda: all_on(house))
    until(lambda: quiet(house))
    heard = at_second(house, HEARD)
    both_ways(house, 50 * CALLS)
    until(lambda: at_second(house, HEARD) >= heard + 50 * CALLS)
    said = hang_up(calls)
    assert (said["calls"]["ok"], lost_in(said["audio"])) == (CALLS, 0)
    assert errors() == wrong
    print(f"{has} calls moved; {xdp(house)['back_refused', '0'] - refused} packets came back by tickets that had ended")


def test_a_host_that_is_gone_has_no_way_and_the_calls_of_the_other_notice_nothing(lab: Lab, house: Appliance) -> None:
    second = lab.transceiver_2
    assert second is not None
    calls, has = calls_at_both(lab, house)
    until(lambda: quiet(house))
    told = house.log_file("edge").read_text().count("on another host goes by the workers")
    for pid in second.pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    house.processes["transceiver-2"].wait()
    until(lambda: states(house) == {("1", ""): 1, ("2", "unanswered"): 0})
    both_ways(house, 50 * has)
    calls.terminate()
    output, _ = calls.communicate(timeout=DEADLINE_S)
    per_call = json.loads(output)["per_call"]
    here = [call for call in per_call if transceiver_of(house, call["call_id"]) == 1]
    assert [(call["outcome"], lost_in(call)) for call in here] == [("ok", 0)] * has
    assert house.log_file("edge").read_text().count("on another host goes by the workers") == told + 1
    house.start("transceiver-2")
    until(lambda: all_on(house))


@pytest.mark.trials
def test_a_way_by_another_interface_is_not_used_and_calls_go_on(lab: Lab, house: Appliance) -> None:
    """The last of these: the second host is reached by a cable of its own, which the edge does not name."""
    second = lab.transceiver_2
    assert second is not None
    calls, _ = calls_at_both(lab, house)
    until(lambda: quiet(house))
    route(lab.edge, second.address, second.inside(lambda: address_of("to-edge")))
    until(lambda: states(house) == {("1", ""): 1, ("2", "other_interface"): 0})
    heard = at_second(house, HEARD)
    until(lambda: at_second(house, HEARD) >= heard + 100)
    said = hang_up(calls)
    assert (said["calls"]["ok"], lost_in(said["audio"])) == (CALLS, 0)
