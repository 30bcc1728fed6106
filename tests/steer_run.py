"""The loaded XDP program as tests see it: a packet in, and out come what XDP returned and the counter that moved."""

from __future__ import annotations

import contextlib
import json
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
