"""Transport-wide feedback, read back as the draft says."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc.rtp.transport_cc import Arrivals


def read(packet: bytes) -> tuple[int, list[float | None], int]:
    """First number, arrival times in seconds modulo the reference clock (None is lost), and the report's count."""
    first, kind, words, sender, media, base, count, clock = struct.unpack_from("!BBHIIHHI", packet)
    assert (first, kind, sender, media) == (0x8F, 205, 1, 2)
    assert len(packet) == 4 * (words + 1)
    at, symbols = 20, []
    while len(symbols) < count:
        (chunk,) = struct.unpack_from("!H", packet, at)
        at += 2
        if not chunk & 0x8000:
            symbols += [chunk >> 13 & 3] * (chunk & 0x1FFF)
        else:
            assert chunk & 0x4000
            symbols += [chunk >> shift & 3 for shift in range(12, -1, -2)]
    time, times = (clock >> 8) * 256, list[float | None]()
    for symbol in symbols[:count]:
        if symbol == 0:
            times.append(None)
            continue
        size = symbol
        time += int.from_bytes(packet[at : at + size], "big", signed=size == 2)
        at += size
        times.append(time * 0.00025)
    assert len(packet) - at < 4
    assert not any(packet[at:])
    return base, times, clock & 0xFF


def check(arrivals: dict[int, float]) -> None:
    """Checks that a report of these packets says when each of them came."""
    told = Arrivals()
    for number, at in arrivals.items():
        told.add(number & 0xFFFF, at)
    packet = told.report(max(arrivals.values()) + 1, 1, 2)
    assert packet is not None
    base, times, _ = read(packet)
    first = min(arrivals)
    assert base == first & 0xFFFF
    assert len(times) == max(arrivals) - first + 1
    for i, time in enumerate(times):
        if first + i in arrivals:
            assert time == pytest.approx(arrivals[first + i], abs=0.0006)
        else:
            assert time is None


@pytest.mark.parametrize("count", [1, 2, 6, 7, 8, 50, 128])
def test_every_packet_is_told(count: int) -> None:
    check({i: 5.0 + i * 0.02 for i in range(count)})


@given(st.integers(0, 0xFFFF), st.dictionaries(st.integers(1, 99), st.floats(0, 0.3), max_size=60), st.floats(0, 0.3))
def test_losses_wraps_and_disorder_are_told(first: int, late: dict[int, float], first_late: float) -> None:
    check({first + i: 100 + i * 0.02 + delay for i, delay in {0: first_late, **late}.items()})


def test_reports_follow_one_another_ten_times_a_second() -> None:
    told, reports = Arrivals(), []
    for i in range(500):
        now = 5.0 + i * 0.02
        if i % 10:
            told.add(i, now)
        packet = told.report(now, 1, 2)
        if packet is not None:
            reports.append(read(packet))
    assert 80 <= len(reports) <= 101
    assert [count for _, _, count in reports] == list(range(len(reports)))
    for before, after in pairwise(reports):
        assert after[0] == before[0] + len(before[1])


def test_nothing_new_is_not_reported() -> None:
    told = Arrivals()
    assert told.report(1.0, 1, 2) is None
    told.add(7, 1.0)
    assert told.report(1.2, 1, 2) is not None
    assert told.report(1.4, 1, 2) is None


def test_numbers_that_jump_make_no_endless_list() -> None:
    told = Arrivals()
    for number in (1, 20000, 20001):
        told.add(number, 1.0)
    packet = told.report(2.0, 1, 2)
    assert packet is not None
    assert len(packet) < 100


def test_random_numbers_are_bounded_and_read_back() -> None:
    rng = random.Random(16)
    told, now = Arrivals(), 1.0
    for _ in range(5000):
        now += rng.choice((0, 0.001, 0.1, 20.0))
        told.add(rng.randrange(1 << 16), now)
        packet = told.report(now, 1, 2)
        if packet is not None:
            read(packet)
            assert len(packet) <= 20 + 128 * 4 + 4
