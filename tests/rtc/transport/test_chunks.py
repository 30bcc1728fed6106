"""SCTP packets are read whole or not at all, and no byte of them keeps the reader."""

from __future__ import annotations

import random
import time
from struct import pack

import pytest
from fuzzing import mutated
from sctp_packets import chunk, data, packet

from rtc.sctp.chunks import Malformed, parse

INIT = pack("!LLHHL", 1, 1 << 20, 65535, 65535, 7)


def kinds(raw: bytes) -> list[str]:
    return [type(found).__name__ for found in parse(raw)[1]]


def test_a_packet_is_its_tag_and_its_chunks() -> None:
    tag, chunks = parse(packet(77, data(1, 2, 3, b"four"), chunk(3, 0, pack("!LLHHHHL", 9, 8, 1, 1, 2, 3, 4))))
    assert tag == 77
    sent, sack = chunks
    assert (sent.tsn, sent.stream_id, sent.stream_seq, sent.user_data) == (1, 2, 3, b"four")  # type: ignore[attr-defined]
    assert (sack.cumulative_tsn, sack.gaps, sack.duplicates) == (9, [(2, 3)], [4])  # type: ignore[attr-defined]


def test_chunks_of_unknown_kinds_are_passed_over() -> None:
    assert kinds(packet(1, chunk(200, 0, b"abc"), data(1, 0, 0, b"x"))) == ["DataChunk"]


def test_one_chunk_of_a_kind_is_enough_but_for_data() -> None:
    many = packet(1, *[chunk(4, 0, b"")] * 20, *[data(i, 0, i, b"x") for i in range(3)], *[chunk(10, 0, bytes(24))] * 5)
    assert kinds(many) == ["HeartbeatChunk", *["DataChunk"] * 3, "CookieEchoChunk"]


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(4, 0, bytes(8))],  # a parameter of length 0 has no next
        [chunk(4, 0, pack("!HH", 1, 3))],
        [chunk(6, 0, pack("!HH", 1, 5))],
        [chunk(1, 0, INIT + bytes(8))],
        [chunk(1, 0, INIT[:-1])],
        [chunk(1, 0, INIT), data(1, 0, 0, b"x")],
        [chunk(2, 0, b"")],
        [chunk(9, 0, pack("!HH", 1, 4) * 33)],
        [chunk(0, 3, bytes(11))],
        [chunk(0, 3, b"")],
        [chunk(3, 0, pack("!LLHH", 1, 1, 1, 0))],
        [chunk(3, 0, pack("!LLHH", 1, 1, 65535, 65535))],
        [chunk(3, 0, b"")],
        [chunk(192, 0, bytes(3))],
        [chunk(192, 0, bytes(6))],
        [chunk(7, 0, bytes(3))],
        [chunk(130, 0, pack("!HHL", 13, 8, 1))],
        [chunk(130, 0, pack("!HHLLLB", 13, 17, 1, 1, 1, 1))],
        [chunk(130, 0, pack("!HHL", 16, 8, 1))],
        [chunk(130, 0, pack("!HHLHH", 17, 12, 1, 1, 0) * 3)],
        [b"\x00\x03\x00\x03"],
        [b"\x00\x03\x01\x00"],
        [bytes(1600)],
        [],
    ],
)
def test_what_says_more_than_it_has_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(Malformed):
        parse(packet(1, *chunks))


def test_a_wrong_checksum_is_refused() -> None:
    raw = packet(1, data(1, 0, 0, b"x"))
    for at in range(len(raw)):
        with pytest.raises(Malformed):
            parse(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])


def test_64_kib_of_anything_take_no_time() -> None:
    rng = random.Random(1)
    for body in (bytes(65000), rng.randbytes(65000), chunk(4, 0, b"") * 16000):
        spent = []
        for _ in range(5):
            began = time.thread_time()
            with pytest.raises(Malformed):
                parse(packet(1, body))
            spent.append(time.thread_time() - began)
        assert min(spent) < 0.005


def test_mutated_packets_are_read_or_refused() -> None:
    rng = random.Random(2)
    bodies = [
        chunk(1, 0, INIT + pack("!HHHH", 0xC000, 4, 0x8008, 6) + b"\xc0\x82"),
        data(1, 2, 3, b"x" * 40),
        chunk(3, 0, pack("!LLHHHHL", 9, 8, 1, 1, 2, 3, 4)),
        chunk(192, 0, pack("!LHH", 9, 1, 2)),
        chunk(130, 0, pack("!HHLLLHH", 13, 20, 1, 2, 3, 4, 5)),
        chunk(4, 0, pack("!HHL", 1, 8, 1)),
    ]
    read = 0
    for _ in range(5000):
        try:
            parse(packet(1, mutated(rng, rng.choice(bodies) + rng.choice(bodies))))
            read += 1
        except Malformed:
            pass
    assert 0 < read < 5000
