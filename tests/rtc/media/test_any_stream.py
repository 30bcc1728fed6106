"""Claims about every stream, whatever the network does to it: its sequence numbers, SRTP's indices and the jitter
buffer."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec
from arrivals import Played, payload
from hypothesis import given
from hypothesis import strategies as st

from rtc.dtls.srtp import PROFILES, Srtp
from rtc.dtls.srtp_state import SrtpState
from rtc.jitter.buffer import COMFORT, NOTHING, JitterBuffer
from rtc.rtp import packet as rtp
from rtc.rtp.packet import Packet, sequence_distance
from rtc.rtp.reception import Reception

SEQUENCES = st.integers(0, 0xFFFF)
WORDS = st.integers(0, 0xFFFFFFFF)
# A packet's distance from the highest that came: what a reception can tell from another stream.
STEPS = st.lists(st.integers(-200, 300), max_size=60)


@given(st.integers(0, 127), st.booleans(), SEQUENCES, WORDS, WORDS, st.binary(max_size=60))
def test_a_packet_is_read_as_it_was_built(
    number: int, marker: bool, sequence: int, timestamp: int, ssrc: int, content: bytes
) -> None:
    packet = Packet(number, marker, sequence, timestamp, ssrc, content)
    assert rtp.parse(rtp.build(*packet[:6])) == packet


@given(SEQUENCES, st.integers(-0x8000, 0x7FFF))
def test_a_distance_is_that_of_the_numbers_before_they_wrapped(a: int, distance: int) -> None:
    assert sequence_distance(a, (a + distance) & 0xFFFF) == distance


@given(SEQUENCES, STEPS)
def test_losses_and_duplicates_are_those_of_the_numbers_before_they_wrapped(start: int, steps: list[int]) -> None:
    reception, came = Reception(), {start}
    reception.add(Packet(111, False, start, 0, 1, b""), 0.0)
    duplicates = 0
    for i, step in enumerate(steps):
        number = max(came) + step
        new = number not in came
        assert reception.add(Packet(111, False, number & 0xFFFF, 0, 1, b""), 0.02 * i) == new
        came.add(number)
        duplicates += not new
    assert (reception.received, reception.duplicates) == (len(came), duplicates)
    assert reception.lost == max(came) - min(came) + 1 - len(came)
    assert reception.highest == max(came) & 0xFFFFFFFF


class Step(NamedTuple):
    """A packet: how far its number is from the last one's, what becomes of it, and whether both ends move after it."""

    distance: int
    fate: Literal["arrives", "is lost", "is late"]
    move: bool


STEPS_OF_SRTP = st.builds(
    Step, st.integers(1, 40) | st.integers(1, 9000), st.sampled_from(("arrives", "is lost", "is late")), st.booleans()
)


@given(st.sampled_from(sorted(PROFILES)), st.integers(0xFFC0, 0xFFFF) | SEQUENCES, st.lists(STEPS_OF_SRTP, max_size=40))
def test_srtp_is_understood_once_over_wraps_losses_and_moves(profile: bytes, start: int, steps: list[Step]) -> None:
    """The roll-over counter is never sent: both ends count it (RFC 3711 section 3.3.1)."""
    size = PROFILES[profile].key + PROFILES[profile].salt
    one, other = bytes(range(size)), bytes(range(100, 100 + size))
    ends = [Srtp(profile, one, other), Srtp(profile, other, one)]
    number = heard = start
    late: tuple[int, bytes] | None = None
    replays: list[bytes] = []
    for distance, fate, move in [Step(0, "arrives", False), *steps]:
        number += distance
        packet = rtp.build(111, False, number & 0xFFFF, 960 * number & 0xFFFFFFFF, 7, b"%d" % number)
        sealed = ends[0].protect(packet)
        if fate == "is late":
            late = number, sealed
        # After half of the numbers nobody knows how often they wrapped.
        elif fate == "arrives" or number - heard > 20_000:
            heard = number
            assert ends[1].unprotect(sealed) == packet
            replays.append(sealed)
        if move:
            ends = [moved(end) for end in ends]
        if heard == number and late is not None:
            # What is not behind the window is heard, and once.
            if ends[1].unprotect(late[1]) is not None:
                replays.append(late[1])
            assert (late[1] in replays) == (heard - late[0] < 1024)
            late = None
        assert all(ends[1].unprotect(each) is None for each in replays)


def moved(end: Srtp) -> Srtp:
    return Srtp.take_up(msgspec.msgpack.decode(msgspec.msgpack.encode(end.export()), type=SrtpState))


# --- the jitter buffer


@given(
    start=SEQUENCES,
    timestamp=WORDS,
    delays=st.lists(st.none() | st.floats(0, 0.3), min_size=1, max_size=80).filter(
        lambda each: each.count(None) < len(each)
    ),
    again=st.sets(st.integers(0, 80)),
    quiet=st.lists(st.booleans(), min_size=1, max_size=7),
)
def test_no_packet_is_played_twice_or_out_of_order_and_each_is_accounted_for(
    start: int, timestamp: int, delays: list[float | None], again: set[int], quiet: list[bool]
) -> None:
    arrivals = []
    for i, delay in enumerate(delays):
        if delay is not None:
            sent = Packet(111, False, (start + i) & 0xFFFF, (timestamp + 960 * i) & 0xFFFFFFFF, 1, payload())
            arrivals += [(1000 + 0.02 * i + delay + late, sent) for late in (0, 0.001)[: 1 + (i in again)]]
    arrivals.sort(key=lambda arrival: arrival[0])
    played = Played(arrivals, quiet=lambda now: quiet[int(now * 50) % len(quiet)])
    places = [sequence_distance(start, sequence) for sequence in played.order]
    assert places == sorted(set(places))
    refused = played.counts["late"] + played.counts["duplicate"] + played.buffer.dropped
    assert played.counts["play"] + refused == len(arrivals) - played.buffer.held


@given(
    st.lists(
        st.tuples(
            st.sampled_from((0, 0.001, 0.02, 5.0)),
            SEQUENCES | st.integers(0, 200),
            WORDS | st.none() | st.just(0),
            st.sampled_from(("waits", "plays", "plays while nobody speaks")),
        ),
        max_size=200,
    ),
    st.integers(0, 100),
)
def test_whatever_numbers_and_clocks_say_what_is_held_and_waited_for_is_bounded(
    packets: list[tuple[float, int, int | None, str]], burst: int
) -> None:
    buffer, now = JitterBuffer(48000, lambda p: p[1] * 480, lambda p: False), 1.0
    for i in range(burst):  # of one moment
        buffer.push(Packet(111, False, i, i, 1, payload()), now)
        assert buffer.held <= 64
    for passes, sequence, timestamp, then in packets:
        now += passes
        at = 960 * sequence if timestamp is None else timestamp
        buffer.push(Packet(111, False, sequence, at, 1, payload()), now)
        assert buffer.held <= 64
        assert 0 < buffer.wait_ms <= 180
        if then != "waits":
            assert NOTHING < buffer.pop(now, then != "plays") <= COMFORT
            assert 0 < buffer.ticks <= 5760
