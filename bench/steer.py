"""The benchmark of the XDP program, by class of packet, beside a program that does nothing.

``BPF_PROG_TEST_RUN`` repeats a program on one packet and tells the mean in nanoseconds. Each round measures the empty
program and every class, one right after the other, so that what else the machine does falls on all of them; a
figure is the median over rounds, and so is the ratio of two in one round. Only ratios carry over to another machine.
What a driver and the CPUMAP add is not in them. Tables and packet are in the cache, as they are under load.

Once in a while a packet of a flow is noted: that the flow is in use and, past the workers, where its client is. In the
classes ``noted`` each packet is, so the difference is what one note costs.

A packet that goes to another host is not the same afterwards. So that repeats can be counted all the same, it comes
back at once: its transceiver is at the edge's own address, and its client is the edge. Every other run is the way up,
and every other the way back; the figure is the mean of both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import struct
import time
from pathlib import Path
from typing import Any

from bcc import BPF
from siphash24 import siphash24

from bench.harness.conditions import conditions
from bench.harness.document import results_file, save
from bpf import layout
from edge.xdp import kernel, probe
from edge.xdp.limits import Limits, Rate
from edge.xdp.steering import Steering, SteeringError
from edge.xdp.ways import Hop
from wire import address, stun
from wire import ufrag as sealed_ufrag
from wire.encapsulation import PORTS, Head, port_of

RESULTS = results_file("steer")

PORT, KEY_ID, KEY, TRANSCEIVER = 3478, 1, bytes(range(16)), 5
CLIENT, LIMITED, EDGE = "198.18.0.2", "198.18.0.3", "198.18.0.1"
IN_AN_HOUR_NS = 3600 * 10**9
CLIENT_V6, EDGE_V6 = "2001:db8::2", "2001:db8::1"
KNOWN_PORT, SHED_PORT, LOUD_PORT, EXPRESS_PORT, STRANGERS_PORT = 40001, 40002, 40003, 40004, 50000
SSRC = 0x01020304

MEMORY_FLOWS = 1 << 20
EMPTY_PROGRAM = b"int empty(struct xdp_md *context) { return XDP_DROP; }"


def frame(payload: bytes, host: str, sport: int = STRANGERS_PORT, dport: int = PORT) -> bytes:
    """Ethernet, IP and UDP around ``payload`` from ``host``, without checksums: XDP looks at none."""
    udp = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    if ":" in host:
        hosts = socket.inet_pton(socket.AF_INET6, host) + socket.inet_pton(socket.AF_INET6, EDGE_V6)
        return bytes(12) + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + hosts + udp
    hosts = socket.inet_aton(host) + socket.inet_aton(EDGE)
    return bytes(12) + b"\x08\0" + struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + hosts + udp


def rtp(ssrc: int) -> bytes:
    """An Opus frame of 20 ms at 64 kbit/s, as SRTP carries it."""
    return struct.pack("!BBHII", 0x80, 111, 1, 960, ssrc) + bytes(160)


def check(ufrag: str) -> bytes:
    """A connectivity check with the attributes that browsers send, USERNAME first."""
    return stun.binding_request(f"{ufrag}:abcd".encode(), b"p" * 22, tie_breaker=1, nominate=True)


def classes() -> dict[str, tuple[str, bytes]]:
    """Verdict and packet by class. The program modifies no packet, so every repeat sees the same."""
    ours, repeated = (sealed_ufrag.seal(TRANSCEIVER, KEY_ID, KEY, random=number) for number in (1, 2))
    forged = ours[:-1] + ("B" if ours[-1] == "A" else "A")
    return {
        "RTP, known flow, IPv4": ("flow_steered", frame(rtp(9), CLIENT, KNOWN_PORT)),
        "RTP, known flow, IPv6": ("flow_steered", frame(rtp(9), CLIENT_V6, KNOWN_PORT)),
        "RTP, known flow, past the workers, IPv4": ("flow_expressed", frame(rtp(9), CLIENT, EXPRESS_PORT)),
        "RTP, known flow, past the workers, IPv6": ("flow_expressed", frame(rtp(9), CLIENT_V6, EXPRESS_PORT)),
        "RTP, known flow, core overloaded": ("core_overloaded", frame(rtp(9), CLIENT, SHED_PORT)),
        "RTP, known flow, over its limit": ("flow_limited", frame(rtp(9), CLIENT, LOUD_PORT)),
        "STUN with tag, known flow": ("stun_steered", frame(check(ours), CLIENT, KNOWN_PORT)),
        "STUN with tag, unknown": ("stun_steered", frame(check(ours), CLIENT)),
        "STUN with tag, over the limit": ("rate_limited", frame(check(ours), LIMITED)),
        "STUN with tag, named too often": ("name_limited", frame(check(repeated), CLIENT)),
        "STUN, forged tag": ("stun_bad_tag", frame(check(forged), CLIENT)),
        "STUN, ufrag not ours": ("stun_bad_ufrag", frame(check("Ab3d"), CLIENT)),
        "RTP, known SSRC, unknown": ("ssrc_steered", frame(rtp(SSRC), CLIENT)),
        "RTP, unknown SSRC": ("rtp_unknown_ssrc", frame(rtp(9), CLIENT)),
        "junk, unknown": ("unknown_flow", frame(b"\xff" * 100, CLIENT)),
        "other traffic": ("other_traffic", frame(rtp(9), CLIENT, dport=53)),
    }


def noted() -> dict[str, tuple[str, bytes]]:
    """The same of packets that are noted each time."""
    return {f"{name}, noted": case for name, case in classes().items() if case[0] in ("flow_steered", "flow_expressed")}


def to_and_fro() -> dict[str, tuple[str, Limits]]:
    """The edge's address, and the limits, by the class of packets that go to another host and come back."""
    name = "RTP, known flow, another host and back, IPv"
    hosts = ((4, EDGE), (6, EDGE_V6))
    return {
        f"{name}{n}{more}": (host, limits) for more, limits in (("", MOST), (", noted", NOTED)) for n, host in hosts
    }


class Noted(Limits):
    """The limits of a program that notes each packet of a flow."""

    def constants(self) -> dict[str, int]:
        return {**super().constants(), "LAST_SEEN_EVERY_JIFFIES": 0}


# Limits that no repeat reaches, so that buckets are looked up and written each time.
_ALL = Rate(10**9, 10**9)
MOST, NOTED = (kind(unknown=_ALL, named=_ALL, checks=_ALL, flow=_ALL) for kind in (Limits, Noted))


def load(address: bytes | None = None, **options: Any) -> Steering:
    return Steering.load(PORT, address, {KEY_ID: KEY}, [0], **options)


def fill_between(steering: Steering, host: str) -> bytes:
    """Has a flow of the edge's own address go to a transceiver there. Returns a packet of its media, which is the same
    again after two runs."""
    head, here, client = Head(PORTS + 1, bytes(range(8))), address.pack(host, 0)[:16], address.pack(host, PORT)
    mac = bytes(6)
    hop = Hop(here + port_of(head.number).to_bytes(2, "big"), here, mac, mac, 1, 1500)
    back = layout.BACK.pack(head.ticket, here, PORT.to_bytes(2, "big"), mac, mac, TRANSCEIVER, 1)
    steering.ways.put(TRANSCEIVER, hop, open=True)
    kernel.BpfMap(steering.backs_fd, layout.NUMBER.size, layout.BACK.size).update(layout.NUMBER.pack(head.number), back)
    kernel.FlowStore(steering.flows_fd, steering.ssrcs_fd).put(client, 0, TRANSCEIVER, True, head)
    packet = probe.frame(mac, host, host, PORT, rtp(9), by=mac, sport=PORT)
    before = steering.counters()
    _, out, _ = kernel.prog_test_run(steering.prog_fd, packet, 2)
    moved = {key[0]: n - before[key] for key, n in steering.counters().items() if n != before[key]}
    if moved != {"flow_expressed": 1, "back_expressed": 1} or out != packet:
        raise SystemExit(f"steer: a packet to another host was counted as {moved}: nothing was measured")
    return packet


def fill(steering: Steering) -> None:
    """Fills the tables: a flow over each IP version, one on a core that sheds all media, and a source; and a prefix, a
    ufrag and a flow that have nothing left for an hour."""
    flows = kernel.FlowStore(steering.flows_fd, steering.ssrcs_fd)
    for host in (CLIENT, CLIENT_V6):
        flows.put(address.pack(host, KNOWN_PORT), 0, TRANSCEIVER)
        flows.put(address.pack(host, EXPRESS_PORT), 0, TRANSCEIVER, True)
    # To the port that they come to: then the packet of each repeat is the same.
    steering.express.put(TRANSCEIVER, PORT)
    flows.put(address.pack(CLIENT, SHED_PORT), 1, TRANSCEIVER)
    kernel.Shedding(steering.shedding_fd).put(1, 1.0)
    flows.put_ssrc(SSRC, 0)
    in_an_hour = time.monotonic_ns() + IN_AN_HOUR_NS
    kernel.BpfMap(steering.buckets_fd, 16, 8).update(address.pack(LIMITED, 0)[:16], struct.pack("=Q", in_an_hour))
    head = sealed_ufrag.seal(TRANSCEIVER, KEY_ID, KEY, random=2)[:16].encode()
    kernel.BpfMap(steering.named_fd, 8, 8).update(siphash24(head, key=KEY).digest(), struct.pack("=Q", in_an_hour))
    loud = layout.FLOW.pack(0, TRANSCEIVER, 0, 0, in_an_hour, in_an_hour, in_an_hour, 0, 0, bytes(8), bytes(4))
    key = layout.flow_key(address.pack(CLIENT, LOUD_PORT))
    kernel.BpfMap(steering.flows_fd, layout.FLOW_KEY.size, layout.FLOW.size).update(key, loud)


def verdict_of(steering: Steering, packet: bytes) -> str:
    """The label that one run of ``packet`` is counted under."""
    before = steering.counters()
    kernel.prog_test_run(steering.prog_fd, packet)
    (label,) = (key[0] for key, n in steering.counters().items() if n != before.get(key, 0))
    return label


def measure(rounds: int, repeats: int) -> tuple[list[int], dict[str, list[int]]]:
    """Nanoseconds a packet in each round: of the empty program, and of ours by class."""
    cases, each_noted = classes(), noted()
    nothing = BPF(text=EMPTY_PROGRAM)
    empty_fd = nothing.load_func(b"empty", BPF.XDP).fd
    empty: list[int] = []
    with contextlib.ExitStack() as loaded:
        runs: list[tuple[str, int, bytes]] = []
        for some, limits in ((cases, MOST), (each_noted, NOTED)):
            steering = loaded.enter_context(load(limits=limits))
            fill(steering)
            for name, (label, packet) in some.items():
                if (seen := verdict_of(steering, packet)) != label:
                    raise SystemExit(f"steer: {name!r} was counted as {seen}, not as {label}: nothing was measured")
                runs.append((name, steering.prog_fd, packet))
        for name, (host, limits) in to_and_fro().items():
            other = loaded.enter_context(load(address.pack(host, 0)[:16], limits=limits))
            runs.append((name, other.prog_fd, fill_between(other, host)))
        figures: dict[str, list[int]] = {name: [] for name, _, _ in runs}
        for _ in range(rounds):
            empty.append(kernel.prog_test_run(empty_fd, frame(rtp(9), CLIENT), repeats)[2])
            for name, prog_fd, packet in runs:
                figures[name].append(kernel.prog_test_run(prog_fd, packet, repeats)[2])
    nothing.cleanup()
    return empty, figures


def memory() -> dict[str, int]:
    """Bytes of program and maps with room for ``MEMORY_FLOWS`` flows, as the kernel accounts for them. Tables of flows
    and sources are allocated whole at the load, so full or empty makes no difference."""
    before = set(os.listdir("/proc/self/fd"))
    with load(flow_entries=MEMORY_FLOWS) as steering:
        ours = [int(fd) for fd in os.listdir("/proc/self/fd") if fd not in before]
        held = {fd: size for fd in ours if (size := memlock(fd)) is not None}
        named = {
            "program": held[steering.prog_fd],
            "flows": held[steering.flows_fd],
            "ssrcs": held[steering.ssrcs_fd],
            "buckets": held[steering.buckets_fd] + held[steering.named_fd],
        }
    return {**named, "other maps": sum(held.values()) - sum(named.values())}


def memlock(fd: int) -> int | None:
    """The memory that the kernel charges for the BPF object behind ``fd``; None where it is none."""
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("memlock:")), None)
    except FileNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=51, help="at least 2")
    parser.add_argument("--repeats", type=int, default=100_000, help="runs of a packet a round")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    options = parser.parse_args()
    # Test runs happen on the core that asks for them: on one, always the same.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    try:
        empty, figures = measure(options.rounds, options.repeats)
        bytes_of = memory()
    except SteeringError as error:
        raise SystemExit(f"steer: {error}") from None

    empty_ns = statistics.median(empty)
    verdicts = {name: label for name, (label, _) in (classes() | noted()).items()}
    verdicts |= dict.fromkeys(to_and_fro(), "flow_expressed")
    result = {
        "run": conditions(rounds=options.rounds, repeats=options.repeats),
        "empty_ns": empty_ns,
        "classes": {
            name: {
                "verdict": verdicts[name],
                "ns": (ns := statistics.median(times)),
                "ns_quartiles": statistics.quantiles(times, n=4)[::2],
                "times_empty": round(statistics.median(a / b for a, b in zip(times, empty, strict=True)), 2),
                # 1 ns a packet is 0.1 % of a core at a million packets a second.
                "core_percent_per_mpps": round(ns / 10, 1),
            }
            for name, times in figures.items()
        },
        "memory": {"flows": MEMORY_FLOWS, "bytes": bytes_of, "total_bytes": sum(bytes_of.values())},
    }
    save(result, options.json)
    print(table(result))


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "| packet | verdict | ns | times empty | of a core at 1 Mpps |",
        "|---|---|---|---|---|",
        f"| (empty program) | | {result['empty_ns']:.0f} | 1.0 | {result['empty_ns'] / 10:.1f} % |",
    ]
    for name, row in result["classes"].items():
        lines.append(
            f"| {name} | `{row['verdict']}` | {row['ns']:.0f} | {row['times_empty']:.1f}"
            f" | {row['core_percent_per_mpps']:.1f} % |"
        )
    held = result["memory"]
    parts = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in held["bytes"].items())
    lines += ["", f"Memory with room for {held['flows']:,} flows: {held['total_bytes'] / 1e6:.0f} MB ({parts})."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
