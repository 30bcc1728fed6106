"""What strangers may send: a token bucket per source prefix, which calls never trip over."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

import packets as p
import pytest
from steer_run import CPUS, KEYS, buckets, exhaust, loaded, prefix, run

from edge import kernel
from edge.kernel import FlowStore
from edge.steering import DEFAULT_UNKNOWN_BURST, DEFAULT_UNKNOWN_RATE, Steering
from wire import address, stun, ufrag

CHECK = stun.binding_request(f"{ufrag.seal(5, 1, KEYS[1], random=1)}:client".encode(), b"p" * 22)
SSRC = 0x01020304


def verdicts(steering: Steering, packet: bytes, times: int) -> Counter[str]:
    """How often each verdict came of ``times`` runs, one right after another."""
    before = steering.counters()
    kernel.prog_test_run(steering.prog_fd, packet, times)
    moved: Counter[str] = Counter()
    for (label, cpu), count in steering.counters().items():
        moved[label] += count - before.get((label, cpu), 0)
    return +moved


@pytest.mark.needs_root
def test_a_stranger_gets_its_burst_and_then_its_rate() -> None:
    with loaded(unknown_rate=1, unknown_burst=30) as steering:
        begin = time.monotonic_ns()
        seen = verdicts(steering, p.datagram(CHECK), 1000)
        end = time.monotonic_ns()
        assert seen.total() == 1000
        assert 30 <= seen["stun_steered"] <= 30 + (end - begin) // 10**9 + 1
        assert set(seen) == {"stun_steered", "rate_limited"}
        due = int.from_bytes(buckets(steering).lookup(prefix(p.CLIENT)) or b"", "little")
        assert begin <= due - seen["stun_steered"] * 10**9 <= end


@pytest.mark.needs_root
def test_a_bucket_fills_up_again_to_the_burst_and_no_further() -> None:
    with loaded(unknown_rate=1, unknown_burst=3) as steering:
        for due in (0, time.monotonic_ns()):
            buckets(steering).update(prefix(p.CLIENT), due.to_bytes(8, "little"))
            assert verdicts(steering, p.datagram(CHECK), 3) == {"stun_steered": 3}
        exhaust(steering, p.CLIENT)
        assert verdicts(steering, p.datagram(CHECK), 3) == {"rate_limited": 3}


@pytest.mark.needs_root
def test_checks_and_ssrc_hints_draw_on_one_bucket() -> None:
    with loaded(unknown_rate=1, unknown_burst=2) as steering:
        FlowStore(steering.flows_fd, steering.ssrcs_fd).put_ssrc(SSRC, 0)
        assert run(steering, p.datagram(CHECK))[1] == "stun_steered"
        used = int.from_bytes(buckets(steering).lookup(prefix(p.CLIENT)) or b"", "little")
        assert run(steering, p.datagram(p.rtp(SSRC)))[1] == "ssrc_steered"
        assert int.from_bytes(buckets(steering).lookup(prefix(p.CLIENT)) or b"", "little") >= used + 10**9


@pytest.mark.needs_root
def test_a_flow_that_is_known_draws_on_no_bucket() -> None:
    with loaded(unknown_rate=1, unknown_burst=1) as steering:
        FlowStore(steering.flows_fd, steering.ssrcs_fd).put(address.pack(p.CLIENT, p.CLIENT_PORT), 1, 5)
        assert verdicts(steering, p.datagram(CHECK), 500) == {"stun_steered": 500}
        assert verdicts(steering, p.datagram(p.rtp(SSRC)), 500) == {"flow_steered": 500}
        assert buckets(steering).lookup(prefix(p.CLIENT)) is None


@pytest.mark.needs_root
def test_what_is_dropped_anyway_draws_on_no_bucket() -> None:
    forged = stun.binding_request(b"I" * 24 + b":client", b"p" * 22)
    with loaded(unknown_rate=1, unknown_burst=1) as steering:
        for payload in (forged, p.rtp(SSRC), b"\x16\xfe\xfd" + bytes(60)):
            run(steering, p.datagram(payload))
        assert buckets(steering).lookup(prefix(p.CLIENT)) is None


@pytest.mark.needs_root
def test_a_hundred_calls_behind_one_address_start_and_rebind_at_once() -> None:
    # Without a pause between, which no network does: 2 s of checks, one every 50 ms, and 1 s of RTP, one every 20 ms.
    with loaded() as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        starts, rebinds = Counter[str](), Counter[str]()
        for call in range(100):
            flows.put_ssrc(call, call % 2)
            starts += verdicts(steering, p.datagram(CHECK, "198.18.1.1", 2000 + call), 40)
            rebinds += verdicts(steering, p.datagram(p.rtp(call), "198.18.1.2", 2000 + call), 50)
        assert starts == {"stun_steered": 4000}
        assert rebinds == {"ssrc_steered": 5000}
    assert DEFAULT_UNKNOWN_RATE >= 100 * 50
    assert DEFAULT_UNKNOWN_BURST >= 100 * 50


@pytest.mark.needs_root
def test_no_limit_keeps_no_buckets() -> None:
    with loaded(unknown_rate=0, unknown_burst=1) as steering:
        assert verdicts(steering, p.datagram(CHECK), 10_000) == {"stun_steered": 10_000}
        assert buckets(steering).lookup(prefix(p.CLIENT)) is None


@pytest.mark.needs_root
def test_prefixes_may_be_shorter() -> None:
    with loaded(unknown_prefixes=(20, 50)) as steering:
        for inside, base in (("10.1.31.255", "10.1.16.0"), ("2001:db8:0:7fff::1", "2001:db8:0:4000::")):
            run(steering, p.datagram(CHECK, inside))
            assert [key for key, _ in buckets(steering).items()] == [address.pack(base, 0)[:16]]
            buckets(steering).delete(address.pack(base, 0)[:16])


@pytest.mark.needs_root
def test_a_flood_from_ever_new_prefixes_evicts_buckets_and_no_flow() -> None:
    rng = random.Random(3)
    with loaded(flow_entries=64) as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        known = {address.pack(p.CLIENT, port) for port in range(64)}
        assert all(flows.put(flow, 1, 5) for flow in known)
        table = buckets(steering)
        for _ in range(70_000):
            table.update(rng.randbytes(16), bytes(8))
        assert run(steering, p.datagram(CHECK, "203.0.113.5"))[1] == "stun_steered"
        assert {flow.address for flow in flows} == known


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"unknown_rate": -1}, "-1 packets a second"),
        ({"unknown_burst": 0}, "0 at once"),
        ({"unknown_prefixes": (33, 64)}, "33 bits of IPv4"),
        ({"unknown_prefixes": (32, 129)}, "129 of IPv6"),
    ],
)
def test_limits_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Steering.load(p.MEDIA_PORT, None, KEYS, CPUS, **wrong)
