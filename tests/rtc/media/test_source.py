"""The choice of the caller's one stream."""

from __future__ import annotations

import pytest

from rtc.rtp.packet import Packet
from rtc.rtp.ssrc import BEGINS, CONTINUES, STRANGER, SsrcSelector


def admit(source: SsrcSelector, sequence: int, now: float, ssrc: int = 1) -> int:
    return source.admit(Packet(111, False, sequence & 0xFFFF, 0, ssrc, b""), now)


def begun(last: int = 100) -> SsrcSelector:
    source = SsrcSelector()
    assert admit(source, last, 1.0) == BEGINS
    return source


@pytest.mark.parametrize("sequence", [101, 110, 3000, 95, 1, 100])
def test_a_stream_goes_on_over_losses_and_disorder(sequence: int) -> None:
    source = begun()
    assert admit(source, sequence, 1.02) == CONTINUES


def test_a_stream_goes_on_over_the_wrap() -> None:
    source = begun(65535)
    assert [admit(source, i, 1.02) for i in (65536, 65537, 65534)] == [CONTINUES] * 3


def test_another_ssrc_is_believed_at_its_second_packet_in_a_row() -> None:
    source = begun()
    assert admit(source, 7, 1.02, ssrc=2) == STRANGER
    assert source.ssrc == 1
    assert admit(source, 8, 1.04, ssrc=2) == BEGINS
    assert source.ssrc == 2
    assert admit(source, 9, 1.06, ssrc=2) == CONTINUES


def test_two_ssrcs_at_once_leave_the_first_alone() -> None:
    source = begun()
    for i in range(100):
        assert admit(source, 101 + i, 1.02 + i * 0.02) == CONTINUES
        assert admit(source, 5 + i, 1.03 + i * 0.02, ssrc=2) == STRANGER


def test_after_silence_another_ssrc_is_believed_at_once() -> None:
    assert admit(begun(), 7, 1.2, ssrc=2) == BEGINS


@pytest.mark.parametrize("jump", [5000, 30000, -200, -20000])
def test_a_jump_is_a_new_beginning_when_the_next_packet_agrees(jump: int) -> None:
    source = begun()
    assert admit(source, 100 + jump, 1.02) == STRANGER
    assert admit(source, 101 + jump, 1.04) == BEGINS
    assert admit(source, 102 + jump, 1.06) == CONTINUES
