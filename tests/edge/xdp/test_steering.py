"""Loading, filling and attaching the XDP program, and the flow store beside it.

Attaching is tried on a veth pair in a network namespace that lives as long as the test.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import packets as p
import psutil
import pytest
from paths import ROOT
from privileges import NOBODY, InNamespace
from steer_run import COMPILED, CPUS, KEYS, exhaust_relay, loaded, older_flows, relay, relay_buckets, run

from bpf import layout
from edge.xdp import kernel
from edge.xdp.cpufilter import attach_cpu_filter, cpu_filter, detach_cpu_filter
from edge.xdp.cpumap import bring_in_bulk
from edge.xdp.kernel import XDP_REDIRECT, FlowStore
from edge.xdp.pins import Pins
from edge.xdp.steering import Steering, SteeringError, SteeringUnavailable
from wire import address

SSRC = 0x01020304
CLIENT_HELLO = b"\x16\xfe\xfd" + bytes(60)


@pytest.fixture(scope="module")
def steering() -> Iterator[Steering]:
    with loaded() as steering:
        yield steering


def as_nobody(code: str, *fds: int) -> None:
    """Runs Python code as a user without any capability, with these descriptors as ``sys.argv[1:]``."""
    subprocess.run(
        [sys.executable, "-c", code, *map(str, fds)],
        pass_fds=fds,
        **NOBODY,
        check=True,
    )


@pytest.mark.needs_root
def test_flows_come_back_from_the_store_as_they_were_put() -> None:
    with loaded() as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        put = {address.pack(f"10.0.{i >> 8}.{i & 255}", 1024 + i): (i % 2, i) for i in range(9000)}
        put[address.pack(p.CLIENT_V6, 1)] = (1, (1 << 18) - 1)
        begin = time.monotonic_ns()
        for client, (cpu, transceiver) in put.items():
            assert flows.put(client, cpu, transceiver)
        rows = list(flows)
        assert {flow.address: (flow.cpu, flow.transceiver) for flow in rows} == put
        assert len(rows) == steering.flow_count() == len(put)
        assert all(begin <= flow.last_seen_ns <= time.monotonic_ns() for flow in rows)
        gone = next(iter(put))
        assert flows.remove(gone)
        assert not flows.remove(gone)
        assert gone not in {flow.address for flow in flows}
        assert flows.put_ssrc(SSRC, 1)
        assert run(steering, p.datagram(p.rtp(SSRC))) == (XDP_REDIRECT, "ssrc_steered", 1)
        assert flows.remove_ssrc(SSRC)
        assert not flows.remove_ssrc(SSRC)
        with pytest.raises(ValueError, match="18 bytes"):
            flows.put(b"short", 0, 0)


@pytest.mark.needs_root
def test_a_full_flow_table_keeps_who_is_in_it() -> None:
    with loaded(flow_entries=2) as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        assert [flows.put(address.pack(p.CLIENT, port), 1, 1) for port in (1, 2, 3)] == [True, True, False]
        assert run(steering, p.datagram(CLIENT_HELLO, sport=1))[1] == "flow_steered"
        assert run(steering, p.datagram(CLIENT_HELLO, sport=3))[1] == "unknown_flow"
        assert flows.put(address.pack(p.CLIENT, 1), 0, 1)
        assert [flows.put_ssrc(ssrc, 1) for ssrc in (1, 2, 3)] == [True, True, False]


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Pins]:
    held = Pins(Path("/sys/fs/bpf") / f"firsthop-{secrets.token_hex(4)}" / "edge")
    yield held
    if held.folder.exists():
        held.remove()


@pytest.mark.needs_root
def test_flows_of_an_older_layout_are_taken_over_with_nothing_used_up(pins: Pins) -> None:
    put = [kernel.Flow(address.pack(p.CLIENT, port), port % 2, 7, 100 + port) for port in range(1, 301)]
    older = older_flows(put, entries=1024)
    pins.put("flows", older)
    os.close(older)
    with loaded(pins=pins, flow_entries=1024) as steering:
        assert sorted(FlowStore(steering.flows_fd, steering.ssrcs_fd)) == sorted(put)
        for payload in (p.rtp(1), CLIENT_HELLO):
            assert run(steering, p.datagram(payload, sport=9)) == (XDP_REDIRECT, "flow_steered", 1)


@pytest.mark.needs_root
def test_what_workers_enter_in_an_older_table_until_they_are_replaced_is_taken_over(pins: Pins) -> None:
    put = [kernel.Flow(address.pack(p.CLIENT, port), 1, 7, time.monotonic_ns()) for port in range(1, 4)]
    older = older_flows(put)
    pins.put("flows", older)
    table = kernel.BpfMap(older, layout.FLOW_KEY.size, 24)
    with loaded(pins=pins) as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        flows.remove(put[0].address)
        later = address.pack(p.CLIENT, 9)
        table.update(layout.flow_key(later), struct.pack("=IIQQ", 1, 7, time.monotonic_ns(), 0))
        steering.catch_up()
        assert {flow.address for flow in flows} == {put[1].address, put[2].address, later}
        flows.remove(later)
        steering.catch_up()
        assert {flow.address for flow in flows} == {put[1].address, put[2].address}, "what has ended comes back"
    os.close(older)


@pytest.mark.needs_root
def test_more_flows_of_an_older_layout_than_there_is_room_for_are_taken_over_as_far_as_it_goes(pins: Pins) -> None:
    put = [kernel.Flow(address.pack(p.CLIENT, port), 1, 7, 1) for port in range(1, 301)]
    older = older_flows(put)
    pins.put("flows", older)
    os.close(older)
    with loaded(pins=pins, flow_entries=64) as steering:
        assert steering.flow_count() == 64


@pytest.mark.needs_root
def test_a_relay_that_stays_keeps_its_bucket_and_one_that_is_no_more_is_forgotten(pins: Pins) -> None:
    stays, goes, comes = (relay(text) for text in ("198.18.7.0/29", "198.18.8.1", "198.18.9.1"))
    earlier = Steering.load(p.MEDIA_PORT, None, KEYS, CPUS, pins=pins, compiled=COMPILED, relays=[stays, goes])
    exhaust_relay(earlier, "198.18.7.0/29")
    (spent,) = [bucket for bucket in relay_buckets(earlier).items() if bucket[1] != bytes(8)]
    earlier.release()
    with loaded(pins=pins, relays=[stays, comes]) as later:
        assert dict(relay_buckets(later).items()) == dict([spent, (layout.RELAY.pack(comes[1], comes[0]), bytes(8))])


@pytest.mark.needs_root
def test_a_table_with_other_keys_is_left_behind(pins: Pins) -> None:
    fd = kernel._bpf(0, kernel._buffer(struct.pack("=IIIII", 1, 8, 24, 16, 0)))
    kernel.BpfMap(fd, 8, 24).update(bytes(8), bytes(24))
    pins.put("flows", fd)
    os.close(fd)
    with loaded(pins=pins) as steering:
        assert steering.flow_count() == 0


UNPRIVILEGED = """
import sys
from edge.xdp.kernel import BpfMap, FlowStore, Shedding
from wire import address
flows_fd, ssrcs_fd, shedding_fd = map(int, sys.argv[1:])
with open("/proc/self/status") as status:
    assert "CapEff:\\t0000000000000000" in status.read()
flows = FlowStore(flows_fd, ssrcs_fd)
a, b = address.pack("192.0.2.1", 1), address.pack("192.0.2.2", 2)
assert flows.put(a, 1, 7) and flows.put(b, 0, 8)
assert {(f.address, f.cpu, f.transceiver) for f in flows} >= {(a, 1, 7), (b, 0, 8)}
assert flows.remove(b) and flows.put_ssrc(9, 1) and flows.remove_ssrc(9)
shedding = Shedding(shedding_fd)
shedding.put(1, 0.25)
assert 0.249 < shedding.get(1) < 0.251 and shedding.get(0) == 0.0
shedding.put(1, 0.0)
"""


@pytest.mark.needs_root
def test_a_process_without_capabilities_uses_the_store_through_inherited_descriptors(steering: Steering) -> None:
    fds = (steering.flows_fd, steering.ssrcs_fd)
    as_nobody(UNPRIVILEGED, *fds, steering.shedding_fd)
    flows = FlowStore(*fds)
    assert (address.pack("192.0.2.1", 1), 1, 7) in {flow[:3] for flow in flows}
    flows.remove(address.pack("192.0.2.1", 1))


@pytest.mark.needs_root
def test_a_descriptor_with_another_layout_is_refused(steering: Steering) -> None:
    with pytest.raises(ValueError, match="keys of 20 and values of 72 bytes, not 20 and 16"):
        kernel.BpfMap(steering.flows_fd, 20, 16)
    with open("/dev/null") as file, pytest.raises(ValueError, match="is not a BPF map"):
        kernel.BpfMap(file.fileno(), 20, 16)


def lacking() -> str:
    """The one line that says why steering cannot be loaded here."""
    with pytest.raises(SteeringUnavailable) as missing:
        Steering.load(p.MEDIA_PORT, None, KEYS, CPUS)
    assert "\n" not in str(missing.value)
    return str(missing.value)


LACKS_CAPABILITIES = """
from edge.xdp.pins import Pins
from edge.xdp.steering import Steering, SteeringUnavailable
try:
    Steering.load(3478, None, {}, [0])
except SteeringUnavailable as missing:
    assert "this process lacks CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF; run it as root" in str(missing), missing
else:
    raise AssertionError("loaded without capabilities")
"""


@pytest.mark.needs_root
def test_a_user_without_capabilities_learns_which_are_missing() -> None:
    as_nobody(LACKS_CAPABILITIES)


@pytest.mark.needs_root
def test_whoever_lacks_headers_or_bcc_learns_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("BCC_KERNEL_SOURCE", "/nonexistent")
        assert "install linux-headers-" in lacking()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "bcc", None)
        assert "install Debian's python3-bpfcc" in lacking()


@pytest.mark.needs_root
def test_a_program_that_does_not_compile_is_one_line_and_a_note(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edge.xdp.program.c_enum", lambda: "enum verdict { VERDICTS };\n")
    with pytest.raises(SteeringUnavailable, match=r"does not load: .*error: .*VERDICT_") as failure:
        Steering.load(p.MEDIA_PORT, None, KEYS, CPUS)
    assert "\n" not in str(failure.value)
    assert any("parse.h" in note for note in failure.value.__notes__)
    assert capfd.readouterr().err == ""


def test_impossible_arguments_are_refused() -> None:
    for port, where, cpus in ((0, None, [0]), (1, b"1234", [0]), (1, None, []), (1, None, [128])):
        with pytest.raises(ValueError, match=r"port|address|CPUs"):
            Steering.load(port, where, KEYS, cpus)
    with pytest.raises(ValueError, match="holds no flow"):
        Steering.load(1, None, KEYS, [0], flow_entries=0)


def test_a_flow_over_loopback_stays_with_one_socket_wherever_its_sender_runs() -> None:
    """XDP has not steered it: a relay on the same host, say, whose threads the kernel moves."""
    available = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        group = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in available]
        port = 0
        for sock in group:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", port))
            port = sock.getsockname()[1]
        attach_cpu_filter(group[0], available)
        senders = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(32)]
        try:
            for cpu in available:
                os.sched_setaffinity(0, {cpu})
                for sender in senders:
                    sender.sendto(b"x", ("127.0.0.1", port))
        finally:
            os.sched_setaffinity(0, available)
        received = [[sender for _, sender in drain(sock, 0)] for sock in group]
        assert sum(map(len, received)) == len(senders) * len(available)
        for each in received:
            assert set(Counter(each).values()) <= {len(available)}
        detach_cpu_filter(group[0])
        with pytest.raises(OSError, match="No such file"):
            detach_cpu_filter(group[0])


def test_the_cpu_filter_leaves_other_cpus_and_loopback_to_the_hash() -> None:
    code = list(struct.iter_unpack("=HBBI", cpu_filter([4, 6])))
    assert [k for op, _, _, k in code if op == 0x06] == [0xFFFFFFFF, 0, 1, 0xFFFFFFFF]


def drain(sock: socket.socket, least: int) -> list[tuple[bytes, Any]]:
    """Reads all that comes, and waits for so many."""
    received: list[tuple[bytes, Any]] = []
    until = time.monotonic() + 20
    while select.select([sock], [], [], 0.05 if len(received) >= least else max(0, until - time.monotonic()))[0]:
        received.append(sock.recvfrom(2048))
    return received


def xdp_on(interface: str) -> bool:
    shown = subprocess.run(["ip", "link", "show", interface], check=True, capture_output=True, text=True)
    return "xdp" in shown.stdout


def mac(interface: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        address: bytes = sock.getsockname()[4]
        return address


# VLAN 0 is no VLAN but a priority, and the interface itself takes it: a tag goes through the CPUMAP, without the VLAN
# interfaces that not every kernel has.
@pytest.mark.needs_root
@pytest.mark.parametrize("tags", [(), (p.CUSTOMER_TAG,)], ids=["untagged", "tagged"])
def test_every_packet_of_a_flow_reaches_the_socket_of_its_core(
    in_namespace: InNamespace, tags: tuple[int, ...]
) -> None:
    def body() -> None:
        with contextlib.ExitStack() as stack:
            group = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in CPUS]
            for sock in group:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind((p.EDGE, p.MEDIA_PORT))
            attach_cpu_filter(group[0], CPUS)
            steering = stack.enter_context(loaded())
            assert steering.attach("fh0") == "native"
            flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
            ports = range(50000, 50064)
            for port in ports:
                flows.put(address.pack(p.CLIENT, port), port % 2, 1)
            wire = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
            wire.bind(("fh1", 0))
            macs = mac("fh0") + mac("fh1")
            for _ in range(5):
                for port in [*ports, 49999]:
                    frame = p.ethernet(p.ipv4(p.udp(p.rtp(1), port)), macs=macs)
                    wire.send(p.tagged(frame, *tags, vlan=0))
                time.sleep(0.01)
            for cpu, sock in enumerate(group):
                received = drain(sock, 5 * 32)
                assert len(received) == 5 * 32
                assert {sender[1] % 2 for _, sender in received} == {cpu}
            counters = steering.counters()
            assert [counters["flow_steered", cpu] for cpu in CPUS] == [160, 160]
            assert counters["rtp_unknown_ssrc", 0] == 5

    in_namespace(body)


@pytest.mark.needs_root
def test_what_finds_no_room_in_a_queue_is_counted(in_namespace: InNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """In real runs of the program, whose redirects are carried out: 64 packets at once, for a queue of one."""
    monkeypatch.setattr("edge.xdp.steering.CPU_QUEUE", 1)
    live_frames, at_once = 1 << 1, 64

    def body() -> None:
        with loaded() as steering:
            steering.watch_queues()
            assert steering.overflow() == dict.fromkeys(CPUS, 0)
            FlowStore(steering.flows_fd, steering.ssrcs_fd).put(address.pack(p.CLIENT, 50001), 1, 1)
            packet = ctypes.create_string_buffer(p.ethernet(p.ipv4(p.udp(p.rtp(1), 50001))))
            run = struct.pack(
                "=IIIIQQII24xIIIxxxx",
                *(steering.prog_fd, 0, len(packet) - 1, 0, ctypes.addressof(packet), 0, at_once, 0),
                *(live_frames, 0, at_once),
            )
            kernel._bpf(kernel._TEST_RUN, kernel._buffer(run))
            assert steering.counters()["flow_steered", 1] == at_once
            overflow = steering.overflow()
            assert 0 < overflow[1] < at_once
            assert overflow[0] == 0

    in_namespace(body)


@pytest.mark.needs_root
def test_the_queues_threads_leave_their_cores_to_the_workers() -> None:
    with loaded() as steering, loaded() as other:
        ids = {each: int(kernel.facts(each._cpu_queues.fd)["map_id"]) for each in (steering, other)}
        steering.bring_in_bulk()
        policies = {
            process.info["name"]: os.sched_getscheduler(process.pid)
            for process in psutil.process_iter(["name"])
            if process.info["name"].startswith("cpumap/")
        }
        for cpu in CPUS:
            assert policies[f"cpumap/{cpu}/map:{ids[steering]}"] == os.SCHED_BATCH
            assert policies[f"cpumap/{cpu}/map:{ids[other]}"] == os.SCHED_OTHER
        with pytest.raises(FileNotFoundError, match="no process is called cpumap/77/"):
            bring_in_bulk(ids[steering], [77])


@pytest.mark.needs_root
def test_attaching_is_refused_where_another_program_is_and_leaves_it_there(
    in_namespace: InNamespace,
) -> None:
    def body() -> None:
        with loaded() as first, loaded() as second:
            first.attach("fh0")
            with pytest.raises(SteeringError, match="fh0 has an XDP program already"):
                second.attach("fh0")
            second.detach()
            second.close()
            assert xdp_on("fh0")
            first.detach()
            first.detach()
            assert not xdp_on("fh0")
            assert first.attach("lo") == "generic"
            with pytest.raises(SteeringError, match="attached already"):
                first.attach("fh0")
            first.detach()
            with pytest.raises(SteeringError, match="no network interface is called"):
                first.attach("nosuch0")
            other_program_is_left_alone(first)

    def other_program_is_left_alone(steering: Steering) -> None:
        """Attached the other way, through netlink as ``ip link set xdp`` does it."""
        from bcc import BPF

        other = BPF(text=b"int other(struct xdp_md *ctx) { return XDP_PASS; }")
        BPF.attach_xdp(b"fh0", other.load_func(b"other", BPF.XDP), 0)
        with pytest.raises(SteeringError, match="fh0 has an XDP program already"):
            steering.attach("fh0")
        steering.close()
        assert xdp_on("fh0")
        BPF.remove_xdp(b"fh0", 0)
        other.cleanup()

    in_namespace(body)


@pytest.mark.needs_root
def test_a_loader_that_dies_takes_its_program_with_it(in_namespace: InNamespace) -> None:
    script = f"""
import os, signal
from edge.xdp.steering import Steering
steering = Steering.load({p.MEDIA_PORT}, None, {{}}, [0])
steering.attach("fh0")
assert "xdp" in os.popen("ip link show fh0").read()
os.kill(os.getpid(), signal.SIGKILL)
"""

    def body() -> None:
        done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == -9
        deadline = time.monotonic() + 2
        while xdp_on("fh0") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not xdp_on("fh0")

    in_namespace(body)
