"""The loaded XDP program as tests see it: a packet in, and out come what XDP returned and the counter that moved."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import packets as p
from conftest import cannot_run

from edge import kernel
from edge.steering import Steering, SteeringUnavailable
from wire import ufrag

GOLDEN = json.loads((Path(__file__).parent / "vectors/ufrag.json").read_text())
KEYS = {int(key_id): bytes.fromhex(key) for key_id, key in GOLDEN["keys"].items()}
CPUS = (0, 1)
SLOT_TO_CPU = [CPUS[slot % len(CPUS)] for slot in range(ufrag.SLOTS)]

_HOUR_NS = 3600 * 10**9


@contextlib.contextmanager
def loaded(port: int = p.MEDIA_PORT, where: bytes | None = None, **options: Any) -> Iterator[Steering]:
    try:
        steering = Steering.load(port, where, KEYS, CPUS, **options)
    except SteeringUnavailable as missing:
        cannot_run(str(missing))
    with steering:
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


def prefix(host: str) -> bytes:
    """The bucket of ``host`` where prefixes have their default lengths."""
    ip = ipaddress.ip_address(host)
    return bytes(10) + b"\xff\xff" + ip.packed if ip.version == 4 else ip.packed[:8] + bytes(8)


def buckets(steering: Steering) -> kernel.BpfMap:
    return kernel.BpfMap(steering.buckets_fd, 16, 8)


def exhaust(steering: Steering, host: str) -> None:
    """Whoever sends from the prefix of ``host`` has used it up for an hour."""
    buckets(steering).update(prefix(host), (time.monotonic_ns() + _HOUR_NS).to_bytes(8, "little"))
