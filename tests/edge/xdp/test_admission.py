"""Admission: token buckets bound what strangers and callers send, and honest calls never meet the bound."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import packets as p
import pytest
from steer_run import (
    CPUS,
    KEYS,
    MOST,
    buckets,
    exhaust,
    exhaust_name,
    exhaust_relay,
    loaded,
    name_of,
    named,
    prefix,
    relay,
    relay_buckets,
    run,
)

from edge.xdp import kernel
from edge.xdp.kernel import FlowStore
from edge.xdp.limits import MEDIA_AT_ONCE, Limits, Rate
from edge.xdp.steering import Steering
from wire import address, stun, ufrag

UFRAG = ufrag.seal(5, 1, KEYS[1], random=1).encode()
CHECK = stun.binding_request(UFRAG + b":client", b"p" * 22)
SSRC = 0x01020304
CLIENT_HELLO = b"\x16\xfe\xfd" + bytes(60)


def a_check(number: int) -> bytes:
    """A check for a call of its own."""
    return stun.binding_request(f"{ufrag.seal(5, 1, KEYS[1], random=number)}:client".encode(), b"p" * 22)


def prefixes_alone(rate: int, burst: int) -> Limits:
    return Limits(unknown=Rate(rate, burst), named=MOST)


def verdicts(steering: Steering, packet: bytes, times: int) -> Counter[str]:
    """The number of times that each verdict came of ``times`` runs, one right after another."""
    before = steering.counters()
    kernel.prog_test_run(steering.prog_fd, packet, times)
    moved: Counter[str] = Counter()
    for (label, cpu), count in steering.counters().items():
        moved[label] += count - before.get((label, cpu), 0)
    return +moved


@pytest.mark.needs_root
def test_a_stranger_gets_its_burst_and_then_its_rate() -> None:
    with loaded(limits=prefixes_alone(1, 3)) as steering:
        begin = time.monotonic_ns()
        seen = verdicts(steering, p.datagram(CHECK), 1000)
        end = time.monotonic_ns()
        assert seen.total() == 1000
        assert 3 <= seen["stun_steered"] <= 3 + (end - begin) // 10**9 + 1
        assert set(seen) == {"stun_steered", "rate_limited"}
        due = int.from_bytes(buckets(steering).lookup(prefix(p.CLIENT)) or b"", "little")
        assert begin <= due - seen["stun_steered"] * 10**9 <= end


@pytest.mark.needs_root
def test_a_bucket_fills_up_again_to_the_burst_and_no_further() -> None:
    with loaded(limits=prefixes_alone(1, 3)) as steering:
        for due in (0, time.monotonic_ns()):
            buckets(steering).update(prefix(p.CLIENT), due.to_bytes(8, "little"))
            assert verdicts(steering, p.datagram(CHECK), 3) == {"stun_steered": 3}
        exhaust(steering, p.CLIENT)
        assert verdicts(steering, p.datagram(CHECK), 3) == {"rate_limited": 3}


@pytest.mark.needs_root
def test_checks_and_ssrc_hints_draw_on_one_bucket() -> None:
    with loaded(limits=prefixes_alone(1, 3)) as steering:
        FlowStore(steering.flows_fd, steering.ssrcs_fd).put_ssrc(SSRC, 0)
        assert run(steering, p.datagram(CHECK))[1] == "stun_steered"
        used = int.from_bytes(buckets(steering).lookup(prefix(p.CLIENT)) or b"", "little")
        assert run(steering, p.datagram(p.rtp(SSRC)))[1] == "ssrc_steered"
        assert int.from_bytes(buckets(steering).lookup(prefix(p.CLIENT)) or b"", "little") >= used + 10**9


def exhaust_all(steering: Steering) -> None:
    """Uses up what strangers from our client's address may name."""
    exhaust(steering, p.CLIENT)
    exhaust_name(steering, UFRAG)
    exhaust_name(steering, SSRC)


@pytest.mark.needs_root
def test_a_flow_that_is_known_draws_on_no_strangers_bucket() -> None:
    with loaded(limits=Limits(unknown=Rate(1, 1), named=Rate(1, 1))) as steering:
        exhaust_all(steering)
        FlowStore(steering.flows_fd, steering.ssrcs_fd).put(address.pack(p.CLIENT, p.CLIENT_PORT), 1, 5)
        spent = [list(table.items()) for table in (buckets(steering), named(steering))]
        assert verdicts(steering, p.datagram(CHECK), 50) == {"stun_steered": 50}
        assert verdicts(steering, p.datagram(p.rtp(SSRC)), 500) == {"flow_steered": 500}
        assert [list(table.items()) for table in (buckets(steering), named(steering))] == spent


@pytest.mark.needs_root
def test_what_is_dropped_anyway_draws_on_no_bucket() -> None:
    forged = stun.binding_request(b"I" * 24 + b":client", b"p" * 22)
    with loaded(limits=prefixes_alone(1, 3)) as steering:
        for payload in (forged, p.rtp(SSRC), b"\x16\xfe\xfd" + bytes(60)):
            run(steering, p.datagram(payload))
        assert not list(buckets(steering).items())
        assert not list(named(steering).items())


@pytest.mark.needs_root
def test_a_hundred_calls_behind_one_address_start_and_rebind_at_once() -> None:
    # Without a pause between, which no network does: 2 s of checks, one every 50 ms, and 1 s of RTP, one every 20 ms.
    with loaded() as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        starts, rebinds = Counter[str](), Counter[str]()
        for call in range(100):
            flows.put_ssrc(call, call % 2)
            starts += verdicts(steering, p.datagram(a_check(call), "198.18.1.1", 2000 + call), 40)
            rebinds += verdicts(steering, p.datagram(p.rtp(call), "198.18.1.2", 2000 + call), 50)
        assert starts == {"stun_steered": 4000}
        assert rebinds == {"ssrc_steered": 5000}
    assert Limits().unknown.per_s >= 100 * 50
    assert Limits().unknown.burst >= 100 * 50


def from_everywhere(number: int, payload: bytes) -> bytes:
    """The packet, sent from the invented address ``number``."""
    return p.datagram(payload, f"198.18.{number >> 8}.{number & 255}", 1024 + number)


@pytest.mark.needs_root
def test_one_good_ufrag_from_ever_new_sources_is_one_callers_worth() -> None:
    with loaded() as steering:
        begin = time.monotonic()
        seen = sum((verdicts(steering, from_everywhere(i, CHECK), 40) for i in range(250)), Counter[str]())
        allowed = Limits().named.burst + Limits().named.per_s * (time.monotonic() - begin) + 1
        assert set(seen) == {"stun_steered", "name_limited"}
        assert Limits().named.burst <= seen["stun_steered"] <= allowed
        assert verdicts(steering, from_everywhere(1, a_check(2)), 1) == {"stun_steered": 1}, "another call is free"


@pytest.mark.needs_root
def test_one_overheard_ssrc_from_ever_new_sources_is_one_callers_worth() -> None:
    with loaded() as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        flows.put_ssrc(SSRC, 0)
        flows.put_ssrc(SSRC + 1, 0)
        begin = time.monotonic()
        packets = [from_everywhere(i, p.rtp(SSRC) if i % 2 else p.rtcp(SSRC)) for i in range(250)]
        seen = sum((verdicts(steering, packet, 40) for packet in packets), Counter[str]())
        allowed = Limits().named.burst + Limits().named.per_s * (time.monotonic() - begin) + 1
        assert set(seen) == {"ssrc_steered", "name_limited"}
        assert Limits().named.burst <= seen["ssrc_steered"] <= allowed
        assert verdicts(steering, from_everywhere(1, p.rtp(SSRC + 1)), 1) == {"ssrc_steered": 1}, "another call is free"


@pytest.mark.needs_root
def test_a_prefix_that_is_over_its_limit_uses_up_no_ufrag() -> None:
    with loaded(limits=Limits(unknown=Rate(1, 5))) as steering:
        assert verdicts(steering, p.datagram(CHECK), 1000)["rate_limited"] >= 990
        due = int.from_bytes(named(steering).lookup(name_of(UFRAG)) or b"", "little")
        assert due - time.monotonic_ns() < 10 * 10**9 // Limits().named.per_s


@pytest.mark.needs_root
def test_a_client_with_many_candidates_that_starts_and_restarts_meets_no_limit() -> None:
    """Ten seconds of a client that is not answered, at 20 checks a second, in one second; then an ICE restart."""
    with loaded() as steering:
        for call in (1, 2):
            for at in range(20):
                assert verdicts(steering, from_everywhere(at, a_check(call)), 10) == {"stun_steered": 10}


FLOW = address.pack(p.CLIENT, p.CLIENT_PORT)
KINDS = [
    ("stun_steered", CHECK),
    ("flow_steered", p.rtp(SSRC)),
    ("flow_steered", p.rtcp(SSRC)),
    ("flow_steered", CLIENT_HELLO),
    ("flow_steered", p.stun(kind=0x0101)),
    ("flow_steered", b"\x7f" * 50),
    ("flow_steered", b"\xff" * 50),
]


@pytest.mark.needs_root
@pytest.mark.parametrize(("label", "payload"), KINDS, ids=["check", "rtp", "rtcp", "dtls", "response", "junk", "more"])
def test_a_known_flow_gets_its_burst_and_then_its_rate(label: str, payload: bytes) -> None:
    with loaded(limits=Limits(checks=Rate(100, 100), flow=Rate(100, 320))) as steering:
        FlowStore(steering.flows_fd, steering.ssrcs_fd).put(FLOW, 1, 5)
        begin = time.monotonic()
        seen = verdicts(steering, p.datagram(payload), 50_000)
        allowed = 100 * (time.monotonic() - begin) + MEDIA_AT_ONCE + 1
        burst = 100 if label == "stun_steered" else 320
        assert set(seen) == {label, "flow_limited"}
        assert burst <= seen[label] <= burst + allowed
        assert verdicts(steering, p.datagram(payload, sport=p.CLIENT_PORT + 1), 1)["flow_limited"] == 0


@pytest.mark.needs_root
def test_checks_media_and_the_rest_of_a_flow_have_a_limit_each_and_so_has_each_flow() -> None:
    with loaded(limits=Limits(checks=Rate(1, 1), flow=Rate(1, 1))) as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        for port in (1, 2):
            flows.put(address.pack(p.CLIENT, port), 1, 5)
        for port in (1, 2):
            for label, payload in (KINDS[0], KINDS[1], KINDS[3]):
                assert run(steering, p.datagram(payload, sport=port))[1] == label
                assert verdicts(steering, p.datagram(payload, sport=port), 200)["flow_limited"] >= 160


@pytest.mark.needs_root
def test_a_flow_that_is_proved_again_has_no_more_to_send() -> None:
    """As with each check of it, and when it is another transceiver's from now on."""
    with loaded(limits=Limits(checks=Rate(1, 1), flow=Rate(1, 1))) as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        flows.put(FLOW, 1, 5)
        for _, payload in KINDS:
            verdicts(steering, p.datagram(payload), 100)
        flows.put(FLOW, 1, 6)
        assert [flow[1:3] for flow in flows] == [(1, 6)]
        for _, payload in KINDS:
            assert run(steering, p.datagram(payload)) == (kernel.XDP_DROP, "flow_limited", 1)


@pytest.mark.needs_root
def test_a_flow_rate_of_0_is_no_limit() -> None:
    with loaded(limits=Limits(flow=Rate(0, 1))) as steering:
        FlowStore(steering.flows_fd, steering.ssrcs_fd).put(FLOW, 1, 5)
        for payload in (p.rtp(SSRC), CLIENT_HELLO):
            assert verdicts(steering, p.datagram(payload), 20_000) == {"flow_steered": 20_000}


def test_no_honest_caller_comes_near_a_flows_limit() -> None:
    """Frames of 10 ms with a report each; 256 KiB, the largest message of a browser, at once; checks at Ta."""
    limits = Limits()
    assert limits.flow.per_s >= 2 * 2 * 100
    assert limits.flow.burst * 1000 >= 2 * 256 * 1024
    assert limits.checks.per_s >= 2 * 20


RELAY, OTHER_RELAY = "198.18.7.0/29", "2001:db8:7::7"


@pytest.fixture
def behind_relays() -> Iterator[Steering]:
    """The program with two relays: each may have 20 strangers' packets steered at once, and who is behind none, one."""
    limits = Limits(unknown=Rate(1, 1), relayed=Rate(1, 20), named=MOST)
    with loaded(limits=limits, relays=[relay(RELAY), relay(OTHER_RELAY)]) as steering:
        yield steering


@pytest.mark.needs_root
def test_all_addresses_of_a_relay_have_one_bucket_of_their_own(behind_relays: Steering) -> None:
    begin = time.monotonic()
    hosts = [f"198.18.7.{host}" for host in range(8)]
    seen = sum((verdicts(behind_relays, p.datagram(CHECK, host), 100) for host in hosts), Counter[str]())
    assert set(seen) == {"stun_steered", "relay_limited"}
    assert 20 <= seen["stun_steered"] <= 20 + time.monotonic() - begin + 1
    assert not list(buckets(behind_relays).items())
    for host, steered in ((OTHER_RELAY, 20), ("198.18.7.8", 1)):
        assert verdicts(behind_relays, p.datagram(CHECK, host), steered) == {"stun_steered": steered}


@pytest.mark.needs_root
def test_calls_that_stand_behind_a_relay_draw_on_no_bucket_of_it(behind_relays: Steering) -> None:
    exhaust_relay(behind_relays, RELAY)
    spent = list(relay_buckets(behind_relays).items())
    flows = FlowStore(behind_relays.flows_fd, behind_relays.ssrcs_fd)
    flows.put(address.pack("198.18.7.1", p.CLIENT_PORT), 1, 5)
    assert verdicts(behind_relays, p.datagram(CHECK, "198.18.7.1"), 50) == {"stun_steered": 50}
    assert verdicts(behind_relays, p.datagram(p.rtp(SSRC), "198.18.7.1"), 500) == {"flow_steered": 500}
    assert verdicts(behind_relays, p.datagram(CHECK, "198.18.7.1", p.CLIENT_PORT + 1), 5) == {"relay_limited": 5}
    assert list(relay_buckets(behind_relays).items()) == spent


def test_what_seven_hundred_calls_send_that_move_at_once_is_within_the_limit_of_their_relay() -> None:
    """Each sends 50 packets of media a second and 20 checks."""
    assert Limits().relayed.per_s >= 700 * 70
    assert Limits().relayed.burst >= 700 * 70


def test_more_relays_than_there_is_room_for_are_refused() -> None:
    with pytest.raises(ValueError, match="257 relays: at most 256"):
        Steering.load(p.MEDIA_PORT, None, KEYS, CPUS, relays=[relay(f"198.18.{i >> 8}.{i & 255}") for i in range(257)])


@pytest.mark.needs_root
def test_no_limit_keeps_no_buckets() -> None:
    with loaded(limits=prefixes_alone(0, 1)) as steering:
        assert verdicts(steering, p.datagram(CHECK), 10_000) == {"stun_steered": 10_000}
        assert buckets(steering).lookup(prefix(p.CLIENT)) is None


@pytest.mark.needs_root
def test_prefixes_may_be_shorter() -> None:
    with loaded(limits=Limits(prefixes=(20, 50))) as steering:
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
        ({"unknown": Rate(-1, 1)}, "-1 packets a second"),
        ({"named": Rate(1, 0)}, "0 at once"),
        ({"flow": Rate(10**9 + 1, 1)}, "1000000001 packets a second"),
        ({"prefixes": (33, 64)}, "33 bits of IPv4"),
        ({"prefixes": (32, 129)}, "129 of IPv6"),
    ],
)
def test_limits_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Steering.load(p.MEDIA_PORT, None, KEYS, CPUS, limits=Limits(**wrong))
