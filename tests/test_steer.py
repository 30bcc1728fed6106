"""The XDP program, packet by packet: what it returns, and that exactly one counter moves.

``BPF_PROG_TEST_RUN`` runs the loaded program without a network; the last tests attach it to a real interface in a
namespace of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import secrets
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import packets as p
import pytest
from conftest import cannot_run

from bpf.verdicts import VERDICTS, c_enum, markdown_table
from edge import kernel
from edge.kernel import XDP_DROP, XDP_PASS, XDP_REDIRECT, FlowStore
from edge.steering import (
    Steering,
    SteeringError,
    SteeringUnavailable,
    attach_cpu_filter,
    cpu_filter,
    detach_cpu_filter,
)
from wire import address, stun, ufrag

ROOT = Path(__file__).parent.parent
GOLDEN = json.loads((Path(__file__).parent / "vectors/ufrag.json").read_text())
KEYS = {int(key_id): bytes.fromhex(key) for key_id, key in GOLDEN["keys"].items()}
CPUS = (0, 1)
SLOT_TO_CPU = [CPUS[slot % len(CPUS)] for slot in range(ufrag.SLOTS)]

UFRAG = ufrag.seal(5, 1, KEYS[1], random=1234567)
ROUTE = ufrag.open_sealed(UFRAG.encode(), KEYS)
assert ROUTE is not None
UFRAG_CPU = SLOT_TO_CPU[ROUTE.slot]

USERNAME = p.attribute(stun.USERNAME, f"{UFRAG}:client".encode())
PRIORITY = p.attribute(stun.PRIORITY, bytes(4))
SOFTWARE = p.attribute(0x8022, b"a browser")
INTEGRITY = p.attribute(stun.MESSAGE_INTEGRITY, bytes(20))

KNOWN_PORT, KNOWN_SSRC = 40001, 0x01020304
KNOWN_V6 = "2001:db8::77"
CLIENT_HELLO = b"\x16\xfe\xfd" + bytes(60)


def username(text: str) -> bytes:
    return p.attribute(stun.USERNAME, text.encode())


def check(ufrag_text: str, sport: int = p.CLIENT_PORT) -> bytes:
    """A binding request to ``ufrag_text`` from a client that calls itself ``c``."""
    return p.datagram(p.stun(username(ufrag_text + ":c")), sport=sport)


def changed(text: str, at: int) -> str:
    """``text`` with the character at ``at`` replaced by another of the alphabet."""
    return text[:at] + ("B" if text[at] == "A" else "A") + text[at + 1 :]


@contextlib.contextmanager
def loaded(port: int = p.MEDIA_PORT, where: bytes | None = None, **options: Any) -> Iterator[Steering]:
    try:
        steering = Steering.load(port, where, KEYS, CPUS, **options)
    except SteeringUnavailable as missing:
        cannot_run(str(missing))
    with steering:
        yield steering


@pytest.fixture(scope="module")
def steering() -> Iterator[Steering]:
    """The program with two keys, CPUs 0 and 1, one flow over each IP version on CPU 1 and one SSRC on CPU 0."""
    with loaded() as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        flows.put(address.pack(p.CLIENT, KNOWN_PORT), 1, 5)
        flows.put(address.pack(KNOWN_V6, KNOWN_PORT), 1, 6)
        flows.put_ssrc(KNOWN_SSRC, 0)
        yield steering


def run(steering: Steering, packet: bytes) -> tuple[int, str, int]:
    """What XDP returned, and the label and CPU of the one counter that moved."""
    before = steering.counters()
    verdict, out, _ = kernel.prog_test_run(steering.prog_fd, packet)
    after = steering.counters()
    moved = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert out == packet
    assert list(moved.values()) == [1], moved
    ((label, cpu),) = moved
    return verdict, label, cpu


CHECK, RTP = p.udp(p.stun(USERNAME)), p.udp(p.rtp(KNOWN_SSRC))

STEERED = [
    ("a check with a sealed ufrag", p.datagram(p.stun(USERNAME, PRIORITY, INTEGRITY)), "stun_steered", UFRAG_CPU),
    ("a check over IPv6", p.datagram(p.stun(USERNAME, INTEGRITY), p.CLIENT_V6), "stun_steered", UFRAG_CPU),
    ("a check with USERNAME last", p.datagram(p.stun(SOFTWARE, PRIORITY, USERNAME)), "stun_steered", UFRAG_CPU),
    ("a check from a known flow goes by its ufrag", check(UFRAG, KNOWN_PORT), "stun_steered", UFRAG_CPU),
    ("a check behind IPv4 options", p.ethernet(p.ipv4(CHECK, options=bytes(8))), "stun_steered", UFRAG_CPU),
    ("a check whose frame is padded", p.datagram(p.stun(USERNAME)) + bytes(6), "stun_steered", UFRAG_CPU),
    ("a check with an empty client ufrag", p.datagram(p.stun(username(UFRAG + ":"))), "stun_steered", UFRAG_CPU),
    ("RTP from a known flow", p.datagram(p.rtp(1), sport=KNOWN_PORT), "flow_steered", 1),
    ("RTP from a known flow over IPv6", p.datagram(p.rtp(1), KNOWN_V6, KNOWN_PORT), "flow_steered", 1),
    ("DTLS from a known flow", p.datagram(CLIENT_HELLO, sport=KNOWN_PORT), "flow_steered", 1),
    ("a binding response from a known flow", p.datagram(p.stun(kind=0x0101), sport=KNOWN_PORT), "flow_steered", 1),
    ("one byte in a padded frame", p.datagram(b"\xff", sport=KNOWN_PORT) + bytes(17), "flow_steered", 1),
    ("RTP with a known SSRC from a new address", p.datagram(p.rtp(KNOWN_SSRC)), "ssrc_steered", 0),
    ("RTP with the marker bit", p.datagram(p.rtp(KNOWN_SSRC, payload_type=128 + 111)), "ssrc_steered", 0),
    ("RTCP with a known SSRC from a new address", p.datagram(p.rtcp(KNOWN_SSRC)), "ssrc_steered", 0),
    ("RTP without a payload", p.datagram(p.rtp(KNOWN_SSRC, b"")), "ssrc_steered", 0),
]  # fmt: skip

PASSED = [
    ("ARP", p.ethernet(bytes(28), p.ARP)),
    ("an Ethernet header and no more", p.ethernet(b"", 0x88CC)),
    ("a VLAN tag", p.ethernet(bytes(50), 0x8100)),
    ("TCP to the same port number", p.ethernet(p.ipv4(p.udp(p.rtp(KNOWN_SSRC)), protocol=p.TCP))),
    ("UDP to another port", p.ethernet(p.ipv4(p.udp(p.rtp(KNOWN_SSRC), dport=53)))),
    ("UDP from the media port to another", p.ethernet(p.ipv4(p.udp(bytes(20), p.MEDIA_PORT, 40000)))),
    ("a fragment that is not the first", p.ethernet(p.ipv4(p.udp(p.rtp(1)), fragment=100))),
    ("a first fragment for another port", p.ethernet(p.ipv4(p.udp(b"x", dport=9), fragment=p.MORE_FRAGMENTS))),
    ("ICMPv6", p.ethernet(p.ipv6(bytes(20), following=58), p.IPV6)),
    ("IPv6 hop-by-hop options", p.ethernet(p.ipv6(b"\x11" + bytes(7) + p.udp(b"x"), following=0), p.IPV6)),
    ("an IPv6 fragment", p.ethernet(p.ipv6(b"\x11\0\0\1" + bytes(4) + p.udp(b"x"), following=44), p.IPV6)),
]  # fmt: skip

DROPPED = [
    ("the first fragment of a datagram", p.ethernet(p.ipv4(RTP, fragment=p.MORE_FRAGMENTS)), "fragment"),
    ("an Ethernet header that promises IPv4", p.ethernet(b""), "malformed"),
    ("an IPv4 header cut short", p.ethernet(p.ipv4(b"")[:19]), "malformed"),
    ("an IPv4 header length below 20 bytes", p.ethernet(p.ipv4(RTP, header_words=4)), "malformed"),
    ("an IPv4 header length past the frame", p.ethernet(p.ipv4(b"", header_words=15)), "malformed"),
    ("an IPv4 total length below its header", p.ethernet(p.ipv4(RTP, total=19)), "malformed"),
    ("an IPv4 total length that cuts the datagram", p.ethernet(p.ipv4(RTP, total=40)), "malformed"),
    ("an IPv6 header cut short", p.ethernet(p.ipv6(b"")[:39], p.IPV6), "malformed"),
    ("an IPv6 length that cuts the datagram", p.ethernet(p.ipv6(RTP, length=12), p.IPV6), "malformed"),
    ("a UDP header cut short", p.ethernet(p.ipv4(RTP[:7])), "malformed"),
    ("a UDP length below its header", p.ethernet(p.ipv4(p.udp(b"x", length=7))), "malformed"),
    ("a UDP length past the frame", p.ethernet(p.ipv4(p.udp(b"x", length=10), total=100)), "malformed"),
    ("no payload", p.datagram(b""), "empty"),
    ("no payload from a known flow, the frame padded", p.datagram(b"", sport=KNOWN_PORT) + bytes(18), "empty"),
    ("STUN's first byte and no more", p.datagram(b"\0"), "stun_malformed"),
    ("STUN's first byte from a known flow", p.datagram(b"\3" + bytes(30), sport=KNOWN_PORT), "stun_malformed"),
    ("a check without the magic cookie", p.datagram(p.stun(USERNAME, cookie=0)), "stun_malformed"),
    ("a STUN length below the datagram", p.datagram(p.stun(USERNAME, length=4)), "stun_malformed"),
    ("a STUN length past the datagram", p.datagram(p.stun(USERNAME, length=64)), "stun_malformed"),
    ("a STUN length that is no multiple of 4", p.datagram(p.stun(USERNAME, b"x")), "stun_malformed"),
    ("an attribute that reaches past the end", p.datagram(p.stun(SOFTWARE[:-4])), "stun_malformed"),
    ("USERNAME that reaches past the end", p.datagram(p.stun(USERNAME[:-4])), "stun_malformed"),
    ("a check without attributes", p.datagram(p.stun()), "stun_no_username"),
    ("a check without USERNAME", p.datagram(p.stun(PRIORITY, SOFTWARE)), "stun_no_username"),
    ("USERNAME after MESSAGE-INTEGRITY", p.datagram(p.stun(PRIORITY, INTEGRITY, USERNAME)), "stun_no_username"),
    ("USERNAME behind too many attributes", p.datagram(p.stun(*[PRIORITY] * 40, USERNAME)), "stun_no_username"),
    ("an empty USERNAME", p.datagram(p.stun(username(""))), "stun_bad_ufrag"),
    ("a ufrag of another maker", check("Ab3d"), "stun_bad_ufrag"),
    ("a ufrag without a colon", p.datagram(p.stun(username(UFRAG))), "stun_bad_ufrag"),
    ("a ufrag that is too long", check(UFRAG + "A"), "stun_bad_ufrag"),
    ("a ufrag of version 0", check("B" + UFRAG[1:]), "stun_bad_ufrag"),
    ("a ufrag of version 2", check("R" + UFRAG[1:]), "stun_bad_ufrag"),
    ("a ufrag under a key nobody has", check("P" + UFRAG[1:]), "stun_bad_ufrag"),
    ("a ufrag under the other key", check("K" + UFRAG[1:]), "stun_bad_tag"),
    ("a ufrag with another transceiver", check(changed(UFRAG, 3)), "stun_bad_tag"),
    ("a ufrag with another random part", check(changed(UFRAG, 15)), "stun_bad_tag"),
    ("a tag with another first digit", check(changed(UFRAG, 16)), "stun_bad_tag"),
    ("a tag with another last digit", check(changed(UFRAG, 23)), "stun_bad_tag"),
    ("a bad tag from a known flow", check(changed(UFRAG, 9), KNOWN_PORT), "stun_bad_tag"),
    ("DTLS from an unknown address", p.datagram(CLIENT_HELLO), "unknown_flow"),
    ("a binding response from an unknown address", p.datagram(p.stun(kind=0x0101)), "unknown_flow"),
    ("a first byte of no protocol", p.datagram(b"\xff" * 50), "unknown_flow"),
    ("the known port from another host", p.datagram(CLIENT_HELLO, "198.18.0.3", KNOWN_PORT), "unknown_flow"),
    ("the known host from another port", p.datagram(CLIENT_HELLO, p.CLIENT, KNOWN_PORT + 1), "unknown_flow"),
    ("RTP with an unknown SSRC", p.datagram(p.rtp(KNOWN_SSRC + 1)), "rtp_unknown_ssrc"),
    ("RTCP with an unknown SSRC", p.datagram(p.rtcp(KNOWN_SSRC + 1)), "rtp_unknown_ssrc"),
    ("RTP whose timestamp is a known SSRC", p.datagram(p.rtp(9, timestamp=KNOWN_SSRC)), "rtp_unknown_ssrc"),
    ("RTP too short for an SSRC", p.datagram(p.rtp(KNOWN_SSRC)[:11]), "rtp_unknown_ssrc"),
    ("RTCP too short for an SSRC", p.datagram(p.rtcp(KNOWN_SSRC)[:7]), "rtp_unknown_ssrc"),
]  # fmt: skip


def described(cases: list[Any]) -> Any:
    return [pytest.param(*case[1:], id=case[0].replace(" ", "_")) for case in cases]


@pytest.mark.needs_root
@pytest.mark.parametrize(("packet", "label", "cpu"), described(STEERED))
def test_steers(steering: Steering, packet: bytes, label: str, cpu: int) -> None:
    assert run(steering, packet) == (XDP_REDIRECT, label, cpu)


@pytest.mark.needs_root
@pytest.mark.parametrize("packet", described(PASSED))
def test_passes(steering: Steering, packet: bytes) -> None:
    assert run(steering, packet) == (XDP_PASS, "other_traffic", 0)


@pytest.mark.needs_root
@pytest.mark.parametrize(("packet", "label"), described(DROPPED))
def test_drops(steering: Steering, packet: bytes, label: str) -> None:
    assert run(steering, packet) == (XDP_DROP, label, 0)


@pytest.mark.needs_root
def test_golden_ufrags_have_the_same_slot_in_the_kernel(steering: Steering) -> None:
    try:
        for vector in GOLDEN["vectors"]:
            packet = p.datagram(p.stun(username(vector["ufrag"] + ":client")))
            slot = vector["slot"]
            steering.set_slots([1 if i == slot else None for i in range(ufrag.SLOTS)])
            assert run(steering, packet) == (XDP_REDIRECT, "stun_steered", 1)
            steering.set_slots([None if i == slot else 1 for i in range(ufrag.SLOTS)])
            assert run(steering, packet) == (XDP_DROP, "no_core", 0)
    finally:
        steering.set_slots(SLOT_TO_CPU)


@pytest.mark.needs_root
def test_fresh_ufrags_and_forgeries_are_judged_as_python_judges_them(steering: Steering) -> None:
    rng = random.Random(1)
    for _ in range(300):
        key_id = rng.choice(list(KEYS))
        text = ufrag.seal(rng.randrange(1 << 18), key_id, KEYS[key_id], random=rng.getrandbits(72))
        if rng.random() < 0.5:
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(ufrag.ALPHABET + ":%\x00") + text[at + 1 :]
        attributes = [username(text + ":client"), PRIORITY, SOFTWARE, INTEGRITY]
        rng.shuffle(attributes)
        request = p.stun(*attributes)
        message = stun.parse(request)
        assert message is not None
        route = ufrag.open_sealed(stun.server_ufrag(message) or b"", KEYS)
        xdp, label, cpu = run(steering, p.datagram(request))
        if route is None:
            assert (xdp, cpu) == (XDP_DROP, 0)
        else:
            assert (xdp, label, cpu) == (XDP_REDIRECT, "stun_steered", SLOT_TO_CPU[route.slot])


@pytest.mark.needs_root
def test_rotated_keys_take_over_without_a_reload(steering: Steering) -> None:
    newer = secrets.token_bytes(16)
    old, new = (check(ufrag.seal(1, i, key)) for i, key in ((1, KEYS[1]), (3, newer)))
    try:
        assert run(steering, new)[1] == "stun_bad_ufrag"
        steering.set_keys({**KEYS, 3: newer})
        assert run(steering, new)[1] == run(steering, old)[1] == "stun_steered"
        steering.set_keys({3: newer})
        assert (run(steering, new)[1], run(steering, old)[1]) == ("stun_steered", "stun_bad_ufrag")
    finally:
        steering.set_keys(KEYS)


@pytest.mark.needs_root
def test_a_flow_on_a_core_that_is_not_there_is_dropped(steering: Steering) -> None:
    flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
    for cpu in (2, 127, 128, 0xFFFFFFFF):
        flows.put(address.pack(p.CLIENT, 40002), cpu, 1)
        assert run(steering, p.datagram(p.rtp(1), sport=40002)) == (XDP_DROP, "no_core", 0)
    assert flows.remove(address.pack(p.CLIENT, 40002))


@pytest.mark.needs_root
def test_only_our_own_address_is_steered() -> None:
    for ours, theirs, src in ((p.EDGE, "198.18.0.9", p.CLIENT), (p.EDGE_V6, "2001:db8::9", p.CLIENT_V6)):
        with loaded(where=address.pack(ours, 0)[:16]) as steering:
            assert run(steering, p.datagram(CLIENT_HELLO, src))[1] == "unknown_flow"
            datagram = p.udp(CLIENT_HELLO)
            other = (
                p.ethernet(p.ipv6(datagram, src, theirs), p.IPV6)
                if ":" in src
                else p.ethernet(p.ipv4(datagram, src, theirs))
            )
            assert run(steering, other) == (XDP_PASS, "other_traffic", 0)
            wrong_family = p.CLIENT if ":" in src else p.CLIENT_V6
            assert run(steering, p.datagram(CLIENT_HELLO, wrong_family))[1] == "other_traffic"


@pytest.mark.needs_root
def test_random_bytes_are_each_counted_once_and_never_sent_back(steering: Steering) -> None:
    rng = random.Random(7)
    kinds = {v.label: v.kind for v in VERDICTS}
    returned = {"steered": XDP_REDIRECT, "passed": XDP_PASS, "dropped": XDP_DROP}
    good = [case[1] for case in STEERED]
    seen = set()
    for i in range(2000):
        noise = rng.randbytes(rng.randrange(200))
        layer = i % 4
        if layer == 0:
            packet = rng.randbytes(14) + noise
        elif layer == 1:
            packet = p.ethernet(p.ipv4(p.udp(b"")[: rng.randrange(9)] + noise))
        elif layer == 2:
            packet = p.datagram(noise, rng.choice((p.CLIENT, p.CLIENT_V6)), rng.choice((1, KNOWN_PORT)))
        else:
            changed = bytearray(rng.choice(good))
            for _ in range(rng.randrange(1, 4)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            packet = bytes(changed[: rng.randrange(14, len(changed) + 1)])
        xdp, label, _ = run(steering, packet)
        assert xdp == returned[kinds[label]]
        seen.add(label)
    assert len(seen) >= 8


@pytest.mark.needs_root
def test_flows_come_back_from_the_store_as_they_were_put() -> None:
    with loaded() as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        put = {address.pack(f"10.0.{i >> 8}.{i & 255}", 1024 + i): (i % 2, i) for i in range(9000)}
        put[address.pack(KNOWN_V6, 1)] = (1, (1 << 18) - 1)
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
        assert flows.put_ssrc(KNOWN_SSRC, 1)
        assert run(steering, p.datagram(p.rtp(KNOWN_SSRC))) == (XDP_REDIRECT, "ssrc_steered", 1)
        assert flows.remove_ssrc(KNOWN_SSRC)
        assert not flows.remove_ssrc(KNOWN_SSRC)
        with pytest.raises(ValueError, match="18 bytes"):
            flows.put(b"short", 0, 0)


@pytest.mark.needs_root
def test_last_seen_moves_at_most_once_a_second(steering: Steering) -> None:
    flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
    table = kernel.BpfMap(steering.flows_fd, kernel.FLOW_KEY.size, kernel.FLOW.size)
    client = address.pack(p.CLIENT, 40003)

    def last_seen_after_a_packet(before_ns: int) -> int:
        table.update(kernel.FLOW_KEY.pack(client), kernel.FLOW.pack(1, 9, before_ns))
        assert run(steering, p.datagram(p.rtp(1), sport=40003)) == (XDP_REDIRECT, "flow_steered", 1)
        return next(flow.last_seen_ns for flow in flows if flow.address == client)

    now = time.monotonic_ns()
    assert last_seen_after_a_packet(now) == now
    assert last_seen_after_a_packet(now + 10_000_000) == now + 10_000_000
    assert last_seen_after_a_packet(now - 2_000_000_000) >= now - 20_000_000
    flows.remove(client)


@pytest.mark.needs_root
def test_a_full_flow_table_keeps_who_is_in_it() -> None:
    with loaded(flow_entries=2) as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        assert [flows.put(address.pack(p.CLIENT, port), 1, 1) for port in (1, 2, 3)] == [True, True, False]
        assert run(steering, p.datagram(CLIENT_HELLO, sport=1))[1] == "flow_steered"
        assert run(steering, p.datagram(CLIENT_HELLO, sport=3))[1] == "unknown_flow"
        assert flows.put(address.pack(p.CLIENT, 1), 0, 1)
        assert [flows.put_ssrc(ssrc, 1) for ssrc in (1, 2, 3)] == [True, True, False]


UNPRIVILEGED = """
import sys
from edge.kernel import BpfMap, FlowStore
from wire import address
flows_fd, ssrcs_fd = map(int, sys.argv[1:])
with open("/proc/self/status") as status:
    assert "CapEff:\\t0000000000000000" in status.read()
flows = FlowStore(flows_fd, ssrcs_fd)
a, b = address.pack("192.0.2.1", 1), address.pack("192.0.2.2", 2)
assert flows.put(a, 1, 7) and flows.put(b, 0, 8)
assert {(f.address, f.cpu, f.transceiver) for f in flows} >= {(a, 1, 7), (b, 0, 8)}
assert flows.remove(b) and flows.put_ssrc(9, 1) and flows.remove_ssrc(9)
"""


@pytest.mark.needs_root
def test_a_process_without_capabilities_uses_the_store_through_inherited_descriptors(steering: Steering) -> None:
    fds = (steering.flows_fd, steering.ssrcs_fd)
    subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, *map(str, fds)],
        pass_fds=fds,
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
    )
    flows = FlowStore(*fds)
    assert (address.pack("192.0.2.1", 1), 1, 7) in {flow[:3] for flow in flows}
    flows.remove(address.pack("192.0.2.1", 1))


@pytest.mark.needs_root
def test_a_descriptor_with_another_layout_is_refused(steering: Steering) -> None:
    with pytest.raises(ValueError, match="keys of 20 and values of 16 bytes, not 20 and 24"):
        kernel.BpfMap(steering.flows_fd, 20, 24)
    with open("/dev/null") as file, pytest.raises(ValueError, match="is not a BPF map"):
        kernel.BpfMap(file.fileno(), 20, 16)


def test_verdicts_make_the_enum_and_the_table() -> None:
    assert len({v.label for v in VERDICTS}) == len(VERDICTS)
    assert c_enum().startswith("enum verdict {\n    VERDICT_STUN_STEERED,\n")
    assert c_enum().endswith("    VERDICTS,\n};\n")
    assert markdown_table().count("\n") == len(VERDICTS) + 2


def test_every_verdict_is_used_in_the_c_program() -> None:
    source = "".join(path.read_text() for path in (ROOT / "bpf").glob("*.[ch]"))
    assert [v.label for v in VERDICTS if f"VERDICT_{v.label.upper()}" not in source] == []


def test_what_steering_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        monkeypatch.setenv("BCC_KERNEL_SOURCE", "/nonexistent")
        monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(SteeringUnavailable) as missing:
        Steering.load(p.MEDIA_PORT, None, KEYS, CPUS)
    assert "\n" not in str(missing.value)
    assert "headers" in str(missing.value) or "CAP_BPF" in str(missing.value)


def test_impossible_arguments_are_refused() -> None:
    for port, where, cpus in ((0, None, [0]), (1, b"1234", [0]), (1, None, []), (1, None, [128])):
        with pytest.raises(ValueError, match=r"port|address|CPUs"):
            Steering.load(port, where, KEYS, cpus)


def test_the_cpu_filter_returns_the_index_of_the_running_cpu() -> None:
    """A group of one socket per CPU: what a thread pinned to a CPU sends over loopback is received on that CPU."""
    available = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        group = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in available]
        port = 0
        for sock in group:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", port))
            port = sock.getsockname()[1]
        attach_cpu_filter(group[0], available)
        try:
            for index, cpu in enumerate(available):
                os.sched_setaffinity(0, {cpu})
                for _ in range(20):
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                        sender.sendto(b"x", ("127.0.0.1", port))
                assert len(drain(group[index])) == 20
        finally:
            os.sched_setaffinity(0, available)
        detach_cpu_filter(group[0])
        with pytest.raises(OSError, match="No such file"):
            detach_cpu_filter(group[0])


def test_the_cpu_filter_leaves_other_cpus_to_the_hash() -> None:
    code = list(struct.iter_unpack("=HBBI", cpu_filter([4, 6])))
    assert [k for op, _, _, k in code if op == 0x06] == [0, 1, 0xFFFFFFFF]


def drain(sock: socket.socket, wait_s: float = 0.5) -> list[tuple[bytes, Any]]:
    """All that is there to read, waiting for the first."""
    received = []
    while select.select([sock], [], [], wait_s)[0]:
        received.append(sock.recvfrom(2048))
        wait_s = 0.05
    return received


@pytest.fixture
def in_namespace() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Runs a function in a network namespace with a veth pair: ``fh0``, 198.18.0.1, and its other end ``fh1``."""
    name = f"fh-steer-{os.getpid()}-{secrets.token_hex(3)}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    def enter(function: Callable[[], None]) -> None:
        """In a thread, because a namespace belongs to a thread and goes with it."""
        failures: list[BaseException] = []

        def inside() -> None:
            try:
                with open(f"/run/netns/{name}") as file:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(file.fileno(), 0x40000000) < 0:  # CLONE_NEWNET
                        raise OSError(ctypes.get_errno(), "setns")
                function()
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "add", "fh0", "type", "veth", "peer", "name", "fh1")
        for step in (
            ("addr", "add", f"{p.EDGE}/24", "dev", "fh0"),
            ("link", "set", "lo", "up"),
            ("link", "set", "fh0", "up"),
            ("link", "set", "fh1", "up"),
        ):
            ip("-n", name, *step)
        yield enter
    finally:
        ip("netns", "del", name)


def xdp_on(interface: str) -> bool:
    shown = subprocess.run(["ip", "link", "show", interface], check=True, capture_output=True, text=True)
    return "xdp" in shown.stdout


def mac(interface: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        address: bytes = sock.getsockname()[4]
        return address


@pytest.mark.needs_root
def test_every_packet_of_a_flow_reaches_the_socket_of_its_core(in_namespace: Callable[..., None]) -> None:
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
                    wire.send(p.ethernet(p.ipv4(p.udp(p.rtp(1), port)), macs=macs))
                time.sleep(0.01)
            for cpu, sock in enumerate(group):
                received = drain(sock)
                assert len(received) == 5 * 32
                assert {sender[1] % 2 for _, sender in received} == {cpu}
            counters = steering.counters()
            assert [counters["flow_steered", cpu] for cpu in CPUS] == [160, 160]
            assert counters["rtp_unknown_ssrc", 0] == 5

    in_namespace(body)


@pytest.mark.needs_root
def test_attaching_is_refused_where_another_program_is_and_leaves_it_there(
    in_namespace: Callable[..., None],
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
def test_a_loader_that_dies_takes_its_program_with_it(in_namespace: Callable[..., None]) -> None:
    script = f"""
import os, signal
from edge.steering import Steering
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
