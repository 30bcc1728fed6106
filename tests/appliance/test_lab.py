"""The three hosts: packets go where they should, nothing else, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute, netns

from lab.network import Host, Lab, LabError, checksum_offload

pytestmark = pytest.mark.needs_root


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def udp(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 0))
    sock.settimeout(2)
    return sock


def udp_on(host: Host, address: str | None = None) -> socket.socket:
    return host.inside(lambda: udp(address or host.address))


def echoes(near: socket.socket, far: socket.socket) -> bool:
    near.sendto(b"there", far.getsockname())
    payload, sender = far.recvfrom(100)
    far.sendto(payload + b" and back", sender)
    return near.recv(100) == b"there and back"


def links_here() -> set[str]:
    with IPRoute() as ip:
        return {link.get("ifname") for link in ip.get_links()}


def ours(names: Iterable[str]) -> list[str]:
    """Other labs may come and go on this machine meanwhile."""
    return [name for name in names if name.startswith(f"fh{os.getpid()}-")]


def test_packets_go_from_client_to_edge_and_from_edge_to_transceiver(lab: Lab) -> None:
    with (
        udp_on(lab.client) as client,
        udp_on(lab.edge) as outer,
        udp_on(lab.edge, lab.edge_inner_address) as inner,
        udp_on(lab.transceiver) as transceiver,
    ):
        assert echoes(client, outer)
        assert echoes(inner, transceiver)


def test_client_cannot_reach_the_transceiver_past_the_edge(lab: Lab) -> None:
    with (
        udp_on(lab.client) as client,
        udp_on(lab.transceiver) as transceiver,
        pytest.raises(OSError, match="unreach"),
    ):
        client.sendto(b"hello", transceiver.getsockname())


def test_senders_towards_xdp_compute_their_own_checksums() -> None:
    with Lab(with_person=True) as lab:
        person = next(name for name in links_here() if lab.client.name.startswith(name))
        assert not checksum_offload(person)
        assert not lab.client.inside(lambda: checksum_offload("to-edge"))
        assert lab.edge.inside(lambda: checksum_offload(lab.edge_interface))


def test_person_on_this_machine_reaches_the_edge_through_the_client() -> None:
    with Lab(with_person=True) as lab:
        assert lab.person_address
        with udp(lab.person_address) as person, udp_on(lab.edge) as edge:
            assert echoes(person, edge)
            # Forwarded by the client host, not translated: XDP sees this machine's own address.
            person.sendto(b"again", edge.getsockname())
            assert edge.recvfrom(100)[1] == person.getsockname()


def test_two_labs_share_no_address(lab: Lab) -> None:
    with Lab() as other:
        mine = {lab.client.address, lab.edge.address, lab.transceiver.address, lab.edge_inner_address}
        theirs = {other.client.address, other.edge.address, other.transceiver.address, other.edge_inner_address}
        assert not mine & theirs
        with udp_on(other.client) as client, udp_on(other.edge) as edge:
            assert echoes(client, edge)


def test_program_on_a_host_has_its_own_pid_and_sees_that_host(lab: Lab) -> None:
    code = "import os, socket; print(os.getpid(), *(name for _, name in socket.if_nameindex()))"
    with lab.edge.popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as program:
        pid, *interfaces = program.communicate(timeout=20)[0].split()
    assert int(pid) == program.pid
    assert set(interfaces) == {"lo", "to-client", "to-transceiver"}


async def test_a_lab_can_be_made_where_an_event_loop_runs() -> None:
    with Lab() as lab:
        assert lab.edge.name in netns.listnetns()


def test_nothing_is_left_after_the_end() -> None:
    files = len(os.listdir("/proc/self/fd"))
    with Lab(with_person=True) as lab:
        assert len(ours(netns.listnetns())) == 3
        assert len(ours(links_here())) == 1
        gentle = lab.edge.popen(["sleep", "60"])
        deaf = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
        stubborn = lab.client.popen(["sh", "-c", deaf], stdout=subprocess.PIPE)
        with stubborn.stdout:
            assert stubborn.stdout.readline() == b"ready\n"
    lab.close()
    assert not ours([*netns.listnetns(), *links_here()])
    assert len(os.listdir("/proc/self/fd")) == files
    assert gentle.returncode == -signal.SIGTERM
    assert stubborn.returncode == -signal.SIGKILL


def test_nothing_is_left_of_a_lab_that_could_not_be_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Lab, "_join_person", fail)
    with pytest.raises(LabError, match="CAP_NET_ADMIN"), Lab(with_person=True):
        pytest.fail("entered a lab that was not finished")
    assert not ours([*netns.listnetns(), *links_here()])


def test_stale_lab_is_removed_with_its_processes_and_a_live_one_is_not(lab: Lab) -> None:
    code = (
        "import os, signal; from lab.network import Lab; lab = Lab(with_person=True).__enter__();"
        "print(lab.edge.name, lab.edge.popen(['sleep', '60'], stdout=-3).pid);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-uc", code], stdout=subprocess.PIPE, text=True, timeout=20, check=False)
    name, orphan = run.stdout.split()
    tag = name.removesuffix("-edge")
    assert name in netns.listnetns()
    assert tag in Lab.remove_stale()
    assert name not in netns.listnetns()
    assert tag not in links_here()
    assert not Path("/proc", orphan, "ns/net").exists()
    assert Path(lab.edge.netns).exists()


def test_lab_left_open_is_removed_when_the_interpreter_exits() -> None:
    code = "from lab.network import Lab; lab = Lab().__enter__(); print(lab.edge.name)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert run.stdout.strip() not in netns.listnetns()
    assert not run.stderr


def test_without_root_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="root"), Lab():
        pytest.fail("entered a lab without root")
