"""The loaded XDP program as tests see it: a packet in, and out come what XDP returned and the counter that moved."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import os
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import packets as p
from paths import TESTS
from privileges import cannot_run
from siphash24 import siphash24

from bpf import layout
from edge.relay.classify import Tables, classify, rewritten
from edge.xdp import kernel
from edge.xdp.limits import Limits, Rate
from edge.xdp.steering import Steering, SteeringUnavailable
from runtime.address import Prefix
from wire import ufrag

GOLDEN = json.loads((TESTS / "vectors/ufrag.json").read_text())
KEYS = {int(key_id): bytes.fromhex(key) for key_id, key in GOLDEN["keys"].items()}
CPUS = (0, 1)
SLOT_TO_CPU = [CPUS[slot % len(CPUS)] for slot in range(ufrag.SLOTS)]

# One folder for all processes of a run.
COMPILED = Path(os.environ["FIRSTHOP_EDGE__COMPILED"])

MOST = Rate(10**9, 10**9)
NO_LIMITS = Limits(unknown=MOST, relayed=MOST, named=MOST, checks=MOST, flow=MOST)

_HOUR_NS = 3600 * 10**9


@contextlib.contextmanager
def loaded(port: int = p.MEDIA_PORT, where: bytes | None = None, **options: Any) -> Iterator[Steering]:
    try:
        steering = Steering.load(port, where, KEYS, CPUS, **{"compiled": COMPILED, **options})
    except SteeringUnavailable as missing:
        cannot_run(str(missing))
    with steering:
        yield steering


def run(steering: Steering, packet: bytes) -> tuple[int, str, int]:
    """The result of XDP, and the label and CPU of the one counter that moved."""
    before = steering.counters()
    verdict, out, _ = kernel.prog_test_run(steering.prog_fd, packet)
    after = steering.counters()
    moved = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert out == packet
    assert list(moved.values()) == [1], moved
    ((label, cpu),) = moved
    return verdict, label, cpu


_AT_ONCE = 100


def agree(
    steering: Steering, packets: Iterable[bytes], tables: Callable[[], Tables], returned: Callable[[str], int]
) -> Counter[str]:
    """Checks that the program and its twin in Python agree on every packet: on what XDP returns, which is ``returned``
    for the verdict's label, on the packet as it leaves, and on the verdict and the CPU, under which each packet is
    counted once. ``tables`` are those that hold when a packet comes. Returns how often each label came.

    Counters are read once in a while: all of them together take a millisecond.
    """
    seen, packets = Counter[str](), iter(packets)
    while some := list(islice(packets, _AT_ONCE)):
        before, due = steering.counters(), Counter[tuple[str, int]]()
        for packet in some:
            now = tables()
            label, cpu = classify(packet, now)
            xdp, out, _ = kernel.prog_test_run(steering.prog_fd, packet)
            assert (xdp, out) == (returned(label), rewritten(packet, now)), (label, packet.hex())
            due[label, cpu] += 1
            seen[label] += 1
        after = steering.counters()
        moved = {key: n - before.get(key, 0) for key, n in after.items() if n != before.get(key, 0)}
        assert moved == due, [packet.hex() for packet in some]
    return seen


# BPF_PROG_TEST_RUN leaves XDP's 256 bytes before a packet. 40 are the kernel's own, and the others may be what a driver
# tells of the packet.
_TOLD = 216
_RUN = struct.Struct("=IIIIQQIIIIQQIII4x")


def run_without_room(steering: Steering, packet: bytes) -> tuple[int, bytes]:
    """The result of XDP, and the packet as it left, where a NIC leaves no room before it (Linux 6.8)."""
    data, out = kernel._buffer(bytes(_TOLD) + packet), kernel._buffer(_TOLD + len(packet) + 256)
    about = kernel._buffer(struct.pack("=IIIIII", _TOLD, len(data), 0, 0, 0, 0))
    attributes = kernel._buffer(
        _RUN.pack(
            *(steering.prog_fd, 0, len(data), len(out), ctypes.addressof(data), ctypes.addressof(out), 1, 0),
            *(len(about), len(about), ctypes.addressof(about), ctypes.addressof(about), 0, 0, 0),
        )
    )
    kernel._bpf(10, attributes)  # BPF_PROG_TEST_RUN
    _, verdict, _, out_bytes, *_ = _RUN.unpack(attributes.raw)
    return verdict, out.raw[:out_bytes][_TOLD:]


def prefix(host: str) -> bytes:
    """The bucket of ``host`` where prefixes have their default lengths."""
    ip = ipaddress.ip_address(host)
    return bytes(10) + b"\xff\xff" + ip.packed if ip.version == 4 else ip.packed[:8] + bytes(8)


def buckets(steering: Steering) -> kernel.BpfMap:
    return kernel.BpfMap(steering.buckets_fd, 16, 8)


def older_flows(flows: list[kernel.Flow], entries: int = 65536) -> int:
    """A flow table in the layout from before flows had buckets, with these flows in it; the caller closes it."""
    older = struct.Struct("=IIQQ")
    attributes = struct.pack("=IIIII", 1, layout.FLOW_KEY.size, older.size, entries, 0)  # BPF_MAP_TYPE_HASH
    fd = kernel._bpf(0, kernel._buffer(attributes))  # BPF_MAP_CREATE
    table = kernel.BpfMap(fd, layout.FLOW_KEY.size, older.size)
    for address, cpu, transceiver, seen_ns in flows:
        table.update(layout.flow_key(address), older.pack(cpu, transceiver, seen_ns, 0))
    return fd


def named(steering: Steering) -> kernel.BpfMap:
    return kernel.BpfMap(steering.named_fd, 8, 8)


def name_of(ufrag_or_ssrc: bytes | int) -> bytes:
    """The bucket of all strangers who name that ufrag (its key id must be in ``KEYS``) or SSRC."""
    if isinstance(ufrag_or_ssrc, int):
        return ufrag_or_ssrc.to_bytes(4, "big") + bytes(4)
    return siphash24(ufrag_or_ssrc[:16], key=KEYS[ufrag.key_id(ufrag_or_ssrc)]).digest()


def exhaust(steering: Steering, host: str) -> None:
    """Uses up, for an hour, the bucket of the prefix of ``host``."""
    buckets(steering).update(prefix(host), _in_an_hour().to_bytes(8, "little"))


def relay(text: str) -> tuple[bytes, int]:
    """The network as ``Steering.load`` takes relays."""
    return Prefix(text).mapped


def relay_buckets(steering: Steering) -> kernel.BpfMap:
    return kernel.BpfMap(steering.relays_fd, layout.RELAY.size, 8)


def exhaust_relay(steering: Steering, text: str) -> None:
    """Uses up, for an hour, the bucket of a relay that the program has."""
    address, bits = relay(text)
    relay_buckets(steering).update(layout.RELAY.pack(bits, address), _in_an_hour().to_bytes(8, "little"))


def exhaust_name(steering: Steering, ufrag_or_ssrc: bytes | int) -> None:
    """Uses up the bucket of all strangers who name that."""
    named(steering).update(name_of(ufrag_or_ssrc), _in_an_hour().to_bytes(8, "little"))


def exhaust_flow(steering: Steering, address18: bytes, *kinds: str) -> None:
    """Uses up the bucket of a known flow's ``media``, ``checks`` or ``other``."""
    table = kernel.BpfMap(steering.flows_fd, layout.FLOW_KEY.size, layout.FLOW.size)
    key = layout.flow_key(address18)
    fields = list(layout.FLOW.unpack(table.lookup(key) or b""))
    for at, kind in ((4, "media"), (5, "other"), (6, "checks")):
        fields[at] = _in_an_hour() if kind in kinds else fields[at]
    table.update(key, layout.FLOW.pack(*fields))


def _in_an_hour() -> int:
    return time.monotonic_ns() + _HOUR_NS
