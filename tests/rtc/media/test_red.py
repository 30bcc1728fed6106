"""Redundant audio, written as RFC 2198 says and read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc.rtp.packet import Packet
from rtc.rtp.red import split


def redundant(primary: bytes, *copies: tuple[int, bytes], sequence: int = 10, timestamp: int = 9600) -> Packet:
    """RED of ``primary`` after ``copies``, each with its timestamp offset."""
    heads = b"".join(bytes([0x80 | 111]) + (offset << 10 | len(copy)).to_bytes(3, "big") for offset, copy in copies)
    payload = heads + bytes([111]) + b"".join(copy for _, copy in copies) + primary
    return Packet(63, False, sequence, timestamp, 7, payload)


def test_a_packet_without_copies_is_itself() -> None:
    assert split(redundant(b"now"), 111) == (Packet(111, False, 10, 9600, 7, b"now"), [])


def test_copies_are_the_packets_right_before() -> None:
    parts = split(redundant(b"now", (1920, b"older"), (960, b"old")), 111)
    assert parts is not None
    assert parts[0].payload == b"now"
    assert [(c.sequence, c.timestamp, c.payload) for c in parts[1]] == [(8, 7680, b"older"), (9, 8640, b"old")]


def test_numbers_and_clocks_wrap() -> None:
    parts = split(redundant(b"now", (960, b"old"), sequence=0, timestamp=0), 111)
    assert parts is not None
    assert [(c.sequence, c.timestamp) for c in parts[1]] == [(65535, (1 << 32) - 960)]


def test_an_empty_copy_is_none() -> None:
    parts = split(redundant(b"now", (960, b"")), 111)
    assert parts == (Packet(111, False, 10, 9600, 7, b"now"), [])


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xef", b"\xef\x00\x00", b"\xef\x0f\x00\x05\x6f1234", b"\xef\x0f\x00\x05", b"\x00now", b"\xff" * 99],
)
def test_what_is_malformed_is_refused(payload: bytes) -> None:
    assert split(Packet(63, False, 1, 1, 1, payload), 111) is None


@given(st.binary(max_size=200))
def test_whatever_comes_is_no_longer_than_its_packet(payload: bytes) -> None:
    parts = split(Packet(63, False, 1, 1, 1, payload), 111)
    if parts is not None:
        primary, copies = parts
        assert len(primary.payload) + sum(len(copy.payload) for copy in copies) < len(payload)
        assert {packet.payload_type for packet in (primary, *copies)} == {111}


@given(
    primary=st.binary(min_size=1, max_size=40),
    copies=st.lists(st.binary(min_size=1, max_size=40), max_size=3),
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
)
def test_copies_of_any_packets_are_those_packets(
    primary: bytes, copies: list[bytes], sequence: int, timestamp: int
) -> None:
    frames = range(len(copies), 0, -1)  # so far back
    packet = redundant(
        primary, *zip((960 * back for back in frames), copies, strict=True), sequence=sequence, timestamp=timestamp
    )
    parts = split(packet, 111)
    assert parts is not None
    assert parts[0] == packet._replace(payload_type=111, payload=primary)
    assert parts[1] == [
        Packet(111, False, (sequence - back) & 0xFFFF, (timestamp - 960 * back) & 0xFFFFFFFF, 7, copy)
        for back, copy in zip(frames, copies, strict=True)
    ]
