"""Asking for what is missing, and sending again what is asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiortc.rtp import RtcpPacket, RtcpRtpfbPacket
from hypothesis import given
from hypothesis import strategies as st

from rtc.rtp.history import History
from rtc.rtp.nack import Missing, pack


def in_time(left_ms: float) -> Callable[[int, float], float]:
    return lambda sequence, now: left_ms


def after(*sequences: int) -> Missing:
    missing = Missing()
    for sequence in sequences:
        missing.came(sequence)
    return missing


# --- asking ---


@pytest.mark.parametrize("lost", [[5], [5, 6, 7], [5, 21], [5, 22], [5, 21, 22, 40], [65535, 65536 + 3]])
def test_what_is_asked_for_is_read_by_others(lost: list[int]) -> None:
    (packet,) = RtcpPacket.parse(pack(1, 2, [sequence & 0xFFFF for sequence in lost]))
    assert isinstance(packet, RtcpRtpfbPacket)
    assert (packet.fmt, packet.ssrc, packet.media_ssrc) == (1, 1, 2)
    assert [sequence & 0xFFFF for sequence in packet.lost] == [sequence & 0xFFFF for sequence in lost]


@given(st.sets(st.integers(0, 0xFFFF), min_size=1, max_size=40))
def test_any_numbers_that_are_asked_for_are_read_by_others(lost: set[int]) -> None:
    (packet,) = RtcpPacket.parse(pack(1, 2, sorted(lost)))
    assert isinstance(packet, RtcpRtpfbPacket)
    assert sorted(sequence & 0xFFFF for sequence in packet.lost) == sorted(lost)


def test_a_gap_is_asked_for_at_once() -> None:
    missing = after(10, 13)
    assert missing.fresh
    assert missing.due(1.0, None, in_time(30)) == [11, 12]
    assert not missing.fresh


def test_without_a_gap_nothing_is_asked_for() -> None:
    missing = after(*range(65530, 65536), *range(5))
    assert not missing.fresh
    assert missing.due(1.0, None, in_time(30)) == []


def test_it_is_asked_for_three_times_a_round_trip_apart() -> None:
    missing = after(1, 3)
    asked = [now for now in range(1000, 1500, 5) if missing.due(now / 1000, 40.0, in_time(100))]
    assert asked == [1000, 1060, 1120]


def test_what_cannot_come_in_time_is_not_asked_for() -> None:
    assert after(1, 3).due(1.0, 40.0, in_time(39)) == []
    missing = after(1, 3)
    assert missing.due(1.0, 40.0, in_time(-1)) == []
    assert missing.due(1.1, 40.0, in_time(100)) == []


def test_what_came_after_all_is_not_asked_for_again() -> None:
    missing = after(1, 3)
    assert missing.due(1.0, None, in_time(100)) == [2]
    assert missing.came(2)
    assert missing.due(2.0, None, in_time(100)) == []
    assert not missing.came(2)


def test_what_only_changed_places_was_not_asked_for() -> None:
    assert not after(1, 3).came(2)


def test_an_outage_is_not_asked_for() -> None:
    assert after(1, 500).due(1.0, None, in_time(100)) == []


def test_gaps_are_bounded() -> None:
    missing = after(*range(0, 1000, 2))
    assert len(missing.due(1.0, None, in_time(1e9))) <= 32


# --- sending again ---


def sent(count: int, first: int = 0) -> History:
    history = History()
    for i in range(first, first + count):
        history.put(i & 0xFFFF, b"%d" % (i & 0xFFFF))
    return history


def test_the_same_datagram_goes_again() -> None:
    assert list(sent(50).again([3, 40, 50])) == [b"3", b"40"]


def test_what_is_long_gone_is_not_sent() -> None:
    assert list(sent(200).again([10, 199])) == [b"199"]


def test_one_packet_is_sent_again_three_times_at_most() -> None:
    history = sent(5)
    assert sum(len(list(history.again([2]))) for _ in range(100)) == 3


@pytest.mark.parametrize("first", [0, 1, 65530, 65534])
def test_the_last_ones_are_in_order_across_the_wrap(first: int) -> None:
    history = sent(4, first)
    assert list(history.last(3)) == [b"%d" % ((first + i) & 0xFFFF) for i in (1, 2, 3)]


def test_before_anything_was_sent_there_is_nothing() -> None:
    assert list(History().last(3)) == []
    assert list(History().again(range(100))) == []
