"""``bpf/steer.c`` and ``edge/relay/classify.py`` decide alike, whatever arrives.

Random bytes would nearly all be other traffic, so most packets are good ones, put together at random and then
damaged a little: a bit, a byte, a field, a cut, a piece taken out or doubled.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import packets as p
import pytest
import steer_cases as fixtures
import steer_run as run

from bpf.verdicts import VERDICTS
from edge.relay.classify import Tables, classify
from edge.xdp.kernel import XDP_DROP, XDP_PASS, XDP_REDIRECT, FlowStore, Shedding
from edge.xdp.steering import Steering
from wire import address, stun, ufrag

RETURNED = {"steered": XDP_REDIRECT, "passed": XDP_PASS, "dropped": XDP_DROP}
KIND = {v.label: v.kind for v in VERDICTS}
BETWEEN = {"back_expressed", "back_refused", "way_answered"}  # these have a test of their own

# The second half are relays.
HOSTS = (
    *("198.18.0.2", "198.18.0.3", "2001:db8::2", "2001:db8:3::2"),
    *("198.18.0.4", "198.18.0.5", "2001:db8:4::2", "2001:db8:4::3"),
)
LIMITED = ("198.18.0.3", "2001:db8:3::2", "198.18.0.5")
# A network within another is a relay of its own. Whether each has nothing left.
RELAYS = {"198.18.0.4/31": True, "198.18.0.5": False, "2001:db8:4::/48": False, "2001:db8:4::2": True}
PORTS = (40001, 40002, 40003)
SSRCS = {0x01020304: 0, 0xFFFFFFFF: 1, 7: 5, 11: 1, 12: 0}
NO_CPU = 5
# Two other clusters, one of which has a key id that this one has not, too.
SISTERS = ({min(run.KEYS): b"a sister's keys ", 7: b"another of those"}, {max(run.KEYS): b"a third cluster."})
# Some of all that come are good ufrags again; of these strangers may name every other no more.
UFRAGS = [ufrag.seal(1, key_id, run.KEYS[key_id], random=random) for key_id in run.KEYS for random in range(4)]
# Of two transceivers one takes media itself, on this port.
EXPRESS_PORT, EXPRESSED_BY = 41000, 3
EXPRESS = {
    address.pack(host, port) for host, port in ((HOSTS[1], PORTS[0]), (HOSTS[2], PORTS[0]), (HOSTS[1], PORTS[1]))
}
LOUD = {
    (address.pack(HOSTS[1], PORTS[1]), "media"),
    (address.pack(HOSTS[1], PORTS[1]), "checks"),
    (address.pack(HOSTS[3], PORTS[1]), "other"),
    (address.pack(HOSTS[0], PORTS[1]), "checks"),
}
TABLES = Tables(
    port=p.MEDIA_PORT,
    address=None,
    keys=run.KEYS,
    slots=[None if slot % 9 == 0 else NO_CPU if slot % 11 == 0 else run.CPUS[slot % 2] for slot in range(ufrag.SLOTS)],
    cpus=run.CPUS,
    flows={address.pack(host, PORTS[0]): at % 2 for at, host in enumerate(HOSTS)}
    | {
        address.pack(HOSTS[0], PORTS[1]): NO_CPU,
        address.pack(HOSTS[1], PORTS[1]): 1,
        address.pack(HOSTS[3], PORTS[1]): 0,
    },
    ssrcs=SSRCS,
    limited={run.prefix(host) for host in LIMITED},
    relays={run.relay(network): empty for network, empty in RELAYS.items()},
    named={11, *(text.encode() for text in UFRAGS[::2])},
    used_up=LOUD,
    shedding={0, NO_CPU},
    overrun={1, NO_CPU},
    express=dict.fromkeys(EXPRESS, EXPRESS_PORT),
    express_ports={EXPRESS_PORT},
    sisters=SISTERS,
)

FIXTURE_TABLES = Tables(
    port=p.MEDIA_PORT,
    address=None,
    keys=run.KEYS,
    slots=run.SLOT_TO_CPU,
    cpus=run.CPUS,
    flows={
        address.pack(host, fixtures.KNOWN_PORT): 1
        for host in (p.CLIENT, fixtures.KNOWN_V6, fixtures.LIMITED, fixtures.LIMITED_V6, fixtures.RELAYED_V6)
    }
    | {fixtures.LOUD: 1},
    ssrcs={fixtures.KNOWN_SSRC: 0, fixtures.REPEATED_SSRC: 0},
    limited={run.prefix(host) for host in (fixtures.LIMITED, fixtures.LIMITED_V6, fixtures.RELAYED)},
    relays={run.relay(fixtures.RELAY): False, run.relay(fixtures.USED_UP_RELAY): True},
    named={fixtures.REPEATED.encode(), fixtures.REPEATED_SSRC},
    used_up={(fixtures.LOUD, kind) for kind in ("media", "checks", "other")},
)
EVERY_FIXTURE = (
    fixtures.described(fixtures.STEERED)
    + fixtures.described([(*case, "other_traffic", 0) for case in fixtures.PASSED])
    + fixtures.described([(*case, 0) for case in fixtures.DROPPED])
    + fixtures.described([(*case, "flow_limited", 1) for case in fixtures.USED_UP])
)


def fill(steering: Steering) -> None:
    """Fills the kernel's maps as ``TABLES`` has them."""
    steering.set_slots(TABLES.slots)
    store = FlowStore(steering.flows_fd, steering.ssrcs_fd)
    steering.express.guard([EXPRESS_PORT])
    steering.express.put(EXPRESSED_BY, EXPRESS_PORT)
    for at, (flow, cpu) in enumerate(TABLES.flows.items()):
        # Some have not proved themselves, the transceiver of others takes nothing itself.
        number, proved = (EXPRESSED_BY, flow in EXPRESS) if at % 2 or flow in EXPRESS else (1, True)
        store.put(flow, cpu, number, proved)
    for ssrc, cpu in TABLES.ssrcs.items():
        store.put_ssrc(ssrc, cpu)
    for host in LIMITED:
        run.exhaust(steering, host)
    for network in (network for network, empty in RELAYS.items() if empty):
        run.exhaust_relay(steering, network)
    for name in TABLES.named:
        run.exhaust_name(steering, name)
    for flow, kind in TABLES.used_up:
        run.exhaust_flow(steering, flow, kind)
    for cpu in (*run.CPUS, NO_CPU):
        Shedding(steering.shedding_fd).put(cpu, float(cpu in TABLES.shedding), float(cpu in TABLES.overrun))


def a_ufrag(rng: random.Random) -> bytes:
    keys = rng.choice([run.KEYS, run.KEYS, *SISTERS])
    key_id = rng.choice(list(keys))
    text = ufrag.seal(rng.randrange(1 << 18), key_id, keys[key_id], random=rng.getrandbits(72)).encode()
    if rng.random() < 0.3:
        text = rng.choice(UFRAGS).encode()
    if rng.random() < 0.2:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice([b"A", b"+", b":", b"\0", b"", b"xx"]) + text[at + 1 :]
    return text


def a_check(rng: random.Random) -> bytes:
    username = p.attribute(stun.USERNAME, a_ufrag(rng) + rng.choice([b":", b":client", b""]))
    attributes: list[bytes] = []
    kinds = (stun.PRIORITY, stun.USE_CANDIDATE, stun.ICE_CONTROLLING, stun.MESSAGE_INTEGRITY, 0x8022, 0xC057)
    for _ in range(rng.choice([0, 1, 3, 3, 3, 8, 15, 16, 20])):
        size = rng.choice([0, 1, 4, 4, 8, 20, 600]) if rng.random() < 0.3 else 4
        attributes.append(p.attribute(rng.choice(kinds), rng.randbytes(size)))
    attributes.insert(rng.choice([0, len(attributes), rng.randrange(len(attributes) + 1)]), username)
    return p.stun(*attributes, kind=rng.choice([1, 1, 1, 1, 0x0101, 0x0011, 3]))[:3000]


def a_payload(rng: random.Random) -> bytes:
    choice = rng.randrange(8)
    if choice < 3:
        return a_check(rng)
    if choice < 5:
        ssrc = rng.choice([*SSRCS, rng.getrandbits(32)])
        return p.rtp(ssrc, rng.randbytes(rng.randrange(60)), payload_type=rng.randrange(256))
    if choice == 5:
        return p.rtcp(rng.choice([*SSRCS, 9]), payload_type=rng.randrange(190, 226)) + rng.randbytes(rng.randrange(9))
    if choice == 6:
        return rng.choice([b"\x16\xfe\xfd", b"\x17\xfe\xfd", b"\x40\0", b"\0", b"\3"]) + rng.randbytes(
            rng.randrange(60)
        )
    return rng.randbytes(rng.choice([0, 1, 2, 7, 8, 11, 12, 19, 20, 60]))


def a_frame(rng: random.Random) -> bytes:
    """A frame as a network might bring it, with each rarity often enough to be met."""
    other = rng.choice([EXPRESS_PORT, rng.getrandbits(16)])
    datagram = p.udp(a_payload(rng), rng.choice(PORTS), p.MEDIA_PORT if rng.random() < 0.94 else other)
    total = rng.choice([0, 0, 0xFFFF, 1, p.MEDIA_PORT, 0xFFFF - EXPRESS_PORT, rng.getrandbits(16)])
    datagram = datagram[:6] + total.to_bytes(2, "big") + datagram[8:]
    host = rng.choice(HOSTS)
    odd = rng.random()
    if ":" not in host:
        options = bytes(4 * rng.randrange(11)) if odd < 0.1 else b""
        fragment = rng.choice([0x2000, 0x2000, 0x4000, 0x2001]) if 0.05 < odd < 0.1 else 0
        frame = p.ethernet(p.ipv4(datagram, host, options=options, fragment=fragment))
    else:
        headers = [rng.choice([p.HOP_BY_HOP, p.ROUTING, p.FRAGMENT, p.DESTINATION]) for _ in range(rng.randrange(7))]
        if odd < 0.7:
            headers = [kind for kind in headers if kind != p.FRAGMENT][: rng.randrange(2)]
        following = p.UDP if rng.random() < 0.97 else rng.randrange(256)
        frame = p.extended(datagram, *headers, src=host, following=following, size=rng.choice([8, 8, 16, 256]))
    stacks = [(), (p.CUSTOMER_TAG,), (p.SERVICE_TAG, p.CUSTOMER_TAG), (p.CUSTOMER_TAG,) * 3]
    (tags,) = rng.choices(stacks, (12, 3, 3, 1))
    return p.tagged(frame, *tags) + bytes(rng.choice([0, 0, 0, 6, 18]))


def a_packet(rng: random.Random) -> bytes:
    """14 to 3,400 bytes, which is what ``BPF_PROG_TEST_RUN`` takes."""
    choice = rng.random()
    if choice < 0.05:
        return rng.randbytes(14 + rng.randrange(200))
    frame = a_frame(rng)
    return (frame if choice < 0.35 else fixtures.damaged(rng, frame))[:3400]


def agree(where: bytes | None, count: int, seed: int) -> Counter[str]:
    """Checks that both halves agree on ``count`` packets, each counted once and where Python says. Returns how often
    each label came."""
    rng = random.Random(seed)
    tables = replace(TABLES, address=where)
    packets = (a_packet(rng) for _ in range(count))
    with run.loaded(where=where, limits=run.NO_LIMITS, sisters=SISTERS, relays=list(tables.relays)) as steering:
        fill(steering)
        return run.agree(steering, packets, lambda: tables, lambda label: RETURNED[KIND[label]])


@pytest.mark.needs_root
def test_c_and_python_decide_alike() -> None:
    assert set(agree(None, 2000, 1)) == set(KIND) - BETWEEN


@pytest.mark.needs_root
@pytest.mark.parametrize("host", [p.EDGE, p.EDGE_V6])
def test_c_and_python_decide_alike_where_one_address_is_ours(host: str) -> None:
    assert {"other_traffic", "stun_steered", "flow_steered"} <= set(agree(address.pack(host, 0)[:16], 800, 2))


@pytest.mark.needs_root
@pytest.mark.trials
def test_c_and_python_decide_alike_on_a_hundred_thousand_packets() -> None:
    seen = agree(None, 100_000, 3)
    print(dict(seen.most_common()))
    assert min(seen[label] for label in KIND.keys() - BETWEEN) >= 100


@pytest.mark.parametrize(("packet", "label", "cpu"), EVERY_FIXTURE)
def test_python_judges_the_fixtures_as_the_kernel_does(packet: bytes, label: str, cpu: int) -> None:
    assert classify(packet, FIXTURE_TABLES) == (label, cpu)


def test_prefixes_of_other_lengths() -> None:
    tables = replace(TABLES, prefixes=(20, 50), limited={address.pack("10.1.16.0", 0)[:16]})
    check = p.stun(p.attribute(stun.USERNAME, run.GOLDEN["vectors"][0]["ufrag"].encode() + b":c"))
    assert classify(p.datagram(check, "10.1.31.255"), tables) == ("rate_limited", 0)
    assert classify(p.datagram(check, "10.1.32.0"), tables)[0] != "rate_limited"
