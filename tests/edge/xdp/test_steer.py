"""The XDP program, packet by packet: what it returns, and that exactly one counter moves.

``BPF_PROG_TEST_RUN`` runs the loaded program without a network.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import packets as p
import pytest
from steer_cases import (
    CLIENT_HELLO,
    DROPPED,
    INTEGRITY,
    KNOWN,
    KNOWN_PORT,
    KNOWN_SSRC,
    KNOWN_V6,
    KNOWN_WITH_OPTIONS,
    LIMITED,
    LIMITED_V6,
    LOUD,
    LOUD_PORT,
    NEVER_SHED,
    PASSED,
    PRIORITY,
    RELAY,
    RELAYED,
    RELAYED_V6,
    REPEATED,
    REPEATED_SSRC,
    SHED,
    SOFTWARE,
    STEERED,
    STRANGERS_SHED,
    USED_UP,
    USED_UP_RELAY,
    check,
    described,
    limited,
    username,
)
from steer_run import (
    GOLDEN,
    KEYS,
    NO_LIMITS,
    SLOT_TO_CPU,
    exhaust,
    exhaust_flow,
    exhaust_name,
    exhaust_relay,
    loaded,
    relay,
    run,
)

import bpf
from bpf import layout
from bpf.verdicts import VERDICTS, c_enum, markdown_table
from edge.xdp import kernel
from edge.xdp.kernel import XDP_DROP, XDP_PASS, XDP_REDIRECT, FlowStore, Shedding
from edge.xdp.steering import Steering
from wire import address, stun, ufrag


@pytest.fixture(scope="module")
def steering() -> Iterator[Steering]:
    """The program with two keys, CPUs 0 and 1, one flow over each IP version on CPU 1 and one SSRC on CPU 0. Two
    prefixes and a relay have used up what strangers may send; each has a flow of its own. Strangers have named one
    ufrag and one SSRC too often, and a flow on CPU 1 has used up all that it may send."""
    with loaded(limits=NO_LIMITS, relays=[relay(RELAY), relay(USED_UP_RELAY)]) as steering:
        flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
        flows.put(address.pack(p.CLIENT, KNOWN_PORT), 1, 5)
        flows.put(address.pack(KNOWN_V6, KNOWN_PORT), 1, 6)
        flows.put_ssrc(KNOWN_SSRC, 0)
        for host in (LIMITED, LIMITED_V6):
            exhaust(steering, host)
            flows.put(address.pack(host, KNOWN_PORT), 1, 7)
        exhaust(steering, RELAYED)
        exhaust_relay(steering, USED_UP_RELAY)
        flows.put(address.pack(RELAYED_V6, KNOWN_PORT), 1, 9)
        exhaust_name(steering, REPEATED.encode())
        flows.put_ssrc(REPEATED_SSRC, 0)
        exhaust_name(steering, REPEATED_SSRC)
        flows.put(LOUD, 1, 8)
        exhaust_flow(steering, LOUD, "media", "checks", "other")
        yield steering


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
@pytest.mark.parametrize("packet", described(USED_UP))
def test_a_flow_over_its_limit_is_counted_for_its_core(steering: Steering, packet: bytes) -> None:
    assert run(steering, packet) == (XDP_DROP, "flow_limited", 1)


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
def test_a_sisters_ufrag_is_steered_by_its_own_tag_and_forgotten_with_its_keys(steering: Steering) -> None:
    theirs = {1: b"a sister's keys ", 5: b"another of those"}
    assert KEYS[1] != theirs[1]
    calls = [ufrag.seal(1, key_id, key) for key_id, key in theirs.items()]
    try:
        assert [run(steering, check(call))[1] for call in calls] == ["stun_bad_tag", "stun_bad_ufrag"]
        for sisters in ([theirs], [{}, {}, {}, theirs]):
            steering.set_keys(KEYS, sisters)
            for call in calls:
                route = ufrag.open_sealed(call.encode(), theirs)
                assert route is not None
                assert run(steering, check(call)) == (XDP_REDIRECT, "stun_steered", SLOT_TO_CPU[route.slot])
            assert run(steering, check(ufrag.seal(1, 1, KEYS[1])))[1] == "stun_steered"
            assert run(steering, check(ufrag.seal(1, 5, bytes(16))))[1] == "stun_bad_tag"
        with pytest.raises(ValueError, match="at most 4"):
            steering.set_keys(KEYS, [theirs] * 5)
    finally:
        steering.set_keys(KEYS)
    assert [run(steering, check(call))[1] for call in calls] == ["stun_bad_tag", "stun_bad_ufrag"]


@pytest.mark.needs_root
def test_a_key_that_stays_is_not_touched_and_one_that_comes_is_there_before_one_goes(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    update = steering._keys.update

    def noted(at: bytes, value: bytes) -> None:
        written.append(layout.U32.unpack(at)[0])
        update(at, value)

    goes, stays = sorted(KEYS)[:2]
    comes = next(i for i in range(8) if i not in KEYS)
    try:
        steering.set_keys({goes: KEYS[goes], stays: KEYS[stays]})
        monkeypatch.setattr(steering._keys, "update", noted)
        steering.set_keys({comes: bytes(16), stays: KEYS[stays]})
        assert written == [comes, goes]
    finally:
        monkeypatch.undo()
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
def test_last_seen_moves_with_traffic_but_not_with_every_packet(steering: Steering) -> None:
    flows = FlowStore(steering.flows_fd, steering.ssrcs_fd)
    table = kernel.BpfMap(steering.flows_fd, layout.FLOW_KEY.size, layout.FLOW.size)
    client = address.pack(p.CLIENT, 40003)
    key = layout.flow_key(client)

    def after_a_packet() -> tuple[int, ...]:
        assert run(steering, p.datagram(p.rtp(1), sport=40003)) == (XDP_REDIRECT, "flow_steered", 1)
        return layout.FLOW.unpack(table.lookup(key) or b"")[:4]

    def last_seen(ns: int, jiffies: int) -> bytes:
        return layout.FLOW.pack(1, 9, ns, jiffies, 0, 0, 0, 0, 0, bytes(8), bytes(4))

    begin = time.monotonic_ns()
    flows.put(client, 1, 9)
    _, _, seen_ns, seen_jiffies = after_a_packet()
    assert begin < seen_ns < time.monotonic_ns()
    table.update(key, last_seen(7, seen_jiffies))
    assert after_a_packet() == (1, 9, 7, seen_jiffies)
    table.update(key, last_seen(7, seen_jiffies - 100))
    assert after_a_packet()[2] > seen_ns
    flows.remove(client)


def test_verdicts_make_the_enum_and_the_table() -> None:
    assert len({v.label for v in VERDICTS}) == len(VERDICTS)
    assert c_enum().startswith("enum verdict {\n    VERDICT_STUN_STEERED,\n")
    assert c_enum().endswith("    VERDICTS,\n};\n")
    assert markdown_table().count("\n") == len(VERDICTS) + 2


def test_every_verdict_is_used_in_the_c_program() -> None:
    source = "".join(path.read_text() for path in Path(bpf.__path__[0]).glob("*.[ch]"))
    assert [v.label for v in VERDICTS if f"VERDICT_{v.label.upper()}" not in source] == []


@pytest.fixture
def overloaded(steering: Steering) -> Iterator[Steering]:
    """The program, with both cores shedding all of their media, and all strangers."""
    shedding = Shedding(steering.shedding_fd)
    for cpu in (0, 1):
        shedding.put(cpu, 1.0, 1.0)
    yield steering
    for cpu in (0, 1):
        shedding.put(cpu, 0.0)


@pytest.mark.needs_root
@pytest.mark.parametrize(("packet", "cpu"), described(SHED))
def test_media_for_an_overloaded_core_is_shed(overloaded: Steering, packet: bytes, cpu: int) -> None:
    assert run(overloaded, packet) == (XDP_DROP, "core_overloaded", cpu)


@pytest.mark.needs_root
@pytest.mark.parametrize(("packet", "label", "cpu"), described(NEVER_SHED))
def test_control_of_a_known_flow_is_never_shed(overloaded: Steering, packet: bytes, label: str, cpu: int) -> None:
    assert run(overloaded, packet) == (XDP_REDIRECT, label, cpu)


@pytest.mark.needs_root
@pytest.mark.parametrize(("packet", "cpu"), described(STRANGERS_SHED))
def test_strangers_for_an_overloaded_core_are_shed(overloaded: Steering, packet: bytes, cpu: int) -> None:
    assert run(overloaded, packet) == (XDP_DROP, "stranger_shed", cpu)


@pytest.mark.needs_root
def test_what_is_dropped_anyway_is_not_counted_as_shed(overloaded: Steering) -> None:
    assert run(overloaded, p.datagram(p.rtp(KNOWN_SSRC + 1))) == (XDP_DROP, "rtp_unknown_ssrc", 0)
    assert run(overloaded, limited(p.rtp(KNOWN_SSRC))) == (XDP_DROP, "rate_limited", 0)
    assert run(overloaded, KNOWN_WITH_OPTIONS) == (XDP_DROP, "ip_options", 0)
    assert run(overloaded, check(REPEATED)) == (XDP_DROP, "name_limited", 0)
    assert run(overloaded, p.datagram(p.rtp(1), sport=LOUD_PORT)) == (XDP_DROP, "flow_limited", 1)


@pytest.mark.needs_root
def test_a_core_sheds_for_itself_alone(steering: Steering) -> None:
    shedding = Shedding(steering.shedding_fd)
    shedding.put(0, 1.0, 1.0)
    try:
        assert run(steering, KNOWN) == (XDP_REDIRECT, "flow_steered", 1)
        assert run(steering, p.datagram(p.rtp(KNOWN_SSRC))) == (XDP_DROP, "stranger_shed", 0)
    finally:
        shedding.put(0, 0.0)
    assert run(steering, p.datagram(p.rtp(KNOWN_SSRC))) == (XDP_REDIRECT, "ssrc_steered", 0)


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("packet", "cpu", "passed", "shed"),
    [
        (KNOWN, 1, "flow_steered", "core_overloaded"),
        (p.datagram(p.rtp(KNOWN_SSRC)), 0, "ssrc_steered", "stranger_shed"),
    ],
    ids=["media", "strangers"],
)
@pytest.mark.parametrize("probability", [0.0, 0.02, 0.3, 1.0])
def test_as_much_is_shed_as_was_asked_for(
    steering: Steering, packet: bytes, cpu: int, passed: str, shed: str, probability: float
) -> None:
    shedding, packets = Shedding(steering.shedding_fd), 100_000
    before = steering.counters()
    if shed == "stranger_shed":
        shedding.put(cpu, 0.0, probability)
    else:
        shedding.put(cpu, probability)
    try:
        assert max(shedding.get(cpu), shedding.strangers(cpu)) == pytest.approx(probability, abs=1e-9)
        kernel.prog_test_run(steering.prog_fd, packet, packets)
    finally:
        shedding.put(cpu, 0.0)
    after = steering.counters()
    was_shed, was_passed = (after[label, cpu] - before[label, cpu] for label in (shed, passed))
    assert was_shed + was_passed == packets
    six_deviations = 6 * (probability * (1 - probability) * packets) ** 0.5
    assert abs(was_shed - probability * packets) <= six_deviations
