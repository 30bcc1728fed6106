"""RTP packets against aiortc's own, and against hostile bytes."""

from __future__ import annotations

import random

import pytest
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from rtc.rtp import packet as rtp
from rtc.rtp.packet import Packet


def test_sequence_and_timestamp_wrap_by_themselves() -> None:
    packet = rtp.parse(rtp.build(111, False, 65536 + 5, (1 << 32) + 7, 1, b""))
    assert packet is not None
    assert (packet.sequence, packet.timestamp) == (5, 7)


def test_aiortc_reads_what_we_build() -> None:
    theirs = RtpPacket.parse(rtp.build(111, True, 65535, 0xFFFFFFFF, 0x12345678, b"payload"))
    assert (theirs.payload_type, theirs.marker, theirs.sequence_number) == (111, 1, 65535)
    assert (theirs.timestamp, theirs.ssrc, theirs.payload) == (0xFFFFFFFF, 0x12345678, b"payload")


def test_we_read_what_aiortc_builds() -> None:
    theirs = RtpPacket(payload_type=63, marker=0, sequence_number=1, timestamp=2, ssrc=3, payload=b"payload")
    theirs.csrc = [1, 2, 3]
    assert rtp.parse(theirs.serialize()) == Packet(63, False, 1, 2, 3, b"payload")


def header(first: int) -> bytes:
    return bytes([first]) + rtp.build(111, False, 1, 2, 3, b"")[1:]


@pytest.mark.parametrize(
    ("first", "rest", "payload"),
    [
        (0x81, b"csrc" + b"voice", b"voice"),
        (0x8F, b"csrc" * 15 + b"voice", b"voice"),
        (0x90, b"\xbe\xde\x00\x00" + b"voice", b"voice"),
        (0x90, b"\xbe\xde\x00\x02" + bytes(8) + b"voice", b"voice"),
        (0x91, b"csrc" + b"\xbe\xde\x00\x01" + bytes(4) + b"voice", b"voice"),
        (0xA0, b"voice" + b"\0\0\3", b"voice"),
        (0xA0, b"\1", b""),
        (0xB0, b"\xbe\xde\x00\x00" + b"v" + b"\1", b"v"),
        (0x80, b"", b""),
    ],
)
def test_what_stands_around_the_payload_is_skipped(first: int, rest: bytes, payload: bytes) -> None:
    packet = rtp.parse(header(first) + rest)
    assert packet is not None
    assert packet.payload == payload


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (0x00, b"voice"),  # version 0
        (0x40, b"voice"),
        (0xC0, b"voice"),
        (0x81, b"csr"),
        (0x8F, b"csrc" * 14),
        (0x90, b""),
        (0x90, b"\xbe\xde\x00"),
        (0x90, b"\xbe\xde\x00\x01" + bytes(3)),
        (0x90, b"\xbe\xde\xff\xff"),
        (0xA0, b"voice\0"),  # no padding is not padding
        (0xA0, b"voice\7"),
        (0xA0, b"\xff"),
    ],
)
def test_what_does_not_add_up_is_malformed(first: int, rest: bytes) -> None:
    assert rtp.parse(header(first) + rest) is None


def test_truncated_headers_are_malformed() -> None:
    whole = rtp.build(111, False, 1, 2, 3, b"")
    assert all(rtp.parse(whole[:length]) is None for length in range(12))


def test_random_bytes_never_raise() -> None:
    rng = random.Random(7)
    for _ in range(5000):
        noise = rng.randbytes(rng.randrange(60))
        packet = rtp.parse(noise)
        assert packet is None or len(packet.payload) <= len(noise) - 12


@pytest.mark.parametrize(("first", "expected"), [(127, False), (128, True), (191, True), (192, False), (0, False)])
def test_media_is_told_by_its_first_byte(first: int, expected: bool) -> None:
    assert rtp.is_rtp_or_rtcp(bytes([first]) + bytes(11)) is expected
    assert not rtp.is_rtp_or_rtcp(bytes([first]) + bytes(6))
    assert not rtp.is_rtp_or_rtcp(b"")


@pytest.mark.parametrize(("second", "expected"), [(191, False), (192, True), (200, True), (223, True), (224, False)])
def test_rtcp_is_told_by_its_second_byte(second: int, expected: bool) -> None:
    assert rtp.is_rtcp(bytes([0x80, second]) + bytes(6)) is expected


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (0, 0, 0),
        (0, 1, 1),
        (1, 0, -1),
        (65535, 0, 1),
        (0, 65535, -1),
        (0, 32767, 32767),
        (0, 32768, -32768),
        (65000, 500, 1036),
    ],
)
def test_the_distance_of_two_sequence_numbers_crosses_the_wrap(a: int, b: int, distance: int) -> None:
    assert rtp.sequence_distance(a, b) == distance


# --- header extensions ---


def extended(profile: str, body: str) -> bytes:
    elements = bytes.fromhex(body)
    packet = bytearray(rtp.build(111, False, 1, 2, 3, b""))
    packet[0] |= 0x10
    return bytes(packet) + bytes.fromhex(profile) + (len(elements) // 4).to_bytes(2, "big") + elements + b"payload"


def test_one_byte_extensions_are_found_by_their_number() -> None:
    # A level of one byte, padding, a number of two.
    packet = rtp.parse(extended("bede", "1085 00 31 1234 00 00".replace(" ", "")))
    assert packet is not None
    assert packet.payload == b"payload"
    assert rtp.extension(packet.extensions, 1) == b"\x85"
    assert rtp.extension(packet.extensions, 3) == b"\x12\x34"
    assert rtp.extension(packet.extensions, 2) is None


def test_extensions_of_another_form_are_skipped() -> None:
    packet = rtp.parse(extended("1000", "03021234"))
    assert packet is not None
    assert (packet.payload, packet.extensions) == (b"payload", b"")


@pytest.mark.parametrize("body", ["3f123456", "f0311234", "00000031", ""])
def test_an_extension_that_is_cut_short_or_ended_is_not_there(body: str) -> None:
    packet = rtp.parse(extended("bede", body))
    assert packet is not None
    assert rtp.extension(packet.extensions, 3) is None


@given(st.dictionaries(st.integers(1, 14), st.binary(min_size=1, max_size=16), max_size=5), st.integers(0, 3))
def test_any_one_byte_extensions_are_found_by_their_numbers(elements: dict[int, bytes], padding: int) -> None:
    body = b"".join(
        bytes(padding) + bytes([number << 4 | len(value) - 1]) + value for number, value in elements.items()
    )
    body += bytes(-len(body) % 4)
    packet = rtp.parse(extended("bede", body.hex()))
    assert packet is not None
    assert {n: rtp.extension(packet.extensions, n) for n in range(1, 15)} == {n: elements.get(n) for n in range(1, 15)}


@given(st.binary(max_size=40), st.integers(1, 14))
def test_whatever_comes_an_extension_is_within_it(extensions: bytes, number: int) -> None:
    found = rtp.extension(extensions, number)
    assert found is None or found in extensions
