"""The messages between edge and transceiver: what is said arrives, and what does not add up is refused."""

from __future__ import annotations

import random

import msgpack
import numpy as np
import pytest

from wire import address
from wire.control import Control, Reader, encode
from wire.frames import MAX_DATAGRAMS, Data, OtherVersionError, WireError, data, pack_batch
from wire.messages import Health, PathUp, ToTransceiver, ToWorker
from wire.versions import OLDEST, VERSION, Versions

VERSIONS = range(OLDEST, VERSION + 1)
decode = Reader[ToTransceiver](ToTransceiver, versions=Versions(OLDEST, VERSION)).read
A, B = address.pack("192.0.2.1", 1), address.pack("2001:db8::1", 2)


def data_message(lengths: object, addresses: object, *bodies: object) -> bytes:
    packed: bytes = msgpack.packb([VERSION, "data", 0, 0, lengths, addresses, *bodies])
    return packed


def control_message(version: int, fields: object, request: object = 1) -> bytes:
    """A control message with whatever in the place of its map."""
    packed: bytes = msgpack.packb([version, "control" if version == 3 else request, fields])
    return packed


# --- what is said arrives ---


@pytest.mark.parametrize(
    "batch",
    [
        [],
        [(A, b"")],
        [(A, b"one")],
        [(A, b"one"), (B, b""), (A, b"three" * 300), (B, b"\0")],
        [(A, bytes(65535))],
        [(A, b"x")] * MAX_DATAGRAMS,
    ],
    ids=["none", "empty", "one", "several", "longest", "most"],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_batch_arrives_in_order(batch: list[tuple[bytes, bytes]], version: int) -> None:
    said = pack_batch(batch, version=version)
    assert said[1] == version
    message = decode(said)
    assert isinstance(message, Data)
    assert len(message) == len(batch)
    assert message.datagrams() == batch


def test_arrays_arrive_as_they_were() -> None:
    message = decode(data(A + B, np.array([3, 2], np.uint16), b"abcde"))
    assert isinstance(message, Data)
    assert message.datagrams() == [(A, b"abc"), (B, b"de")]
    assert message.lengths.tolist() == [3, 2]


def test_stamps_arrive_as_they_were() -> None:
    message = decode(pack_batch([(A, b"a")], stamp_ns=2**62, held_ns=1))
    assert isinstance(message, Data)
    assert (message.stamp_ns, message.held_ns) == (2**62, 1)
    message = decode(pack_batch([(A, b"a")]))
    assert isinstance(message, Data)
    assert (message.stamp_ns, message.held_ns) == (0, 0)


@pytest.mark.parametrize("stamps", [(None, 0), (0, None), ("1", 0), (1.5, 0), (0, b"1"), (True, 0), ([], 0)])
def test_stamps_that_are_no_numbers_are_refused(stamps: tuple[object, object]) -> None:
    with pytest.raises(WireError, match="two numbers"):
        decode(msgpack.packb([VERSION, "data", *stamps, b"\1\0", A, b"a"]))


def test_lengths_are_little_endian_whatever_the_array_says() -> None:
    message = decode(data(A, np.array([258], ">u2"), bytes(258)))
    assert isinstance(message, Data)
    assert message.lengths.tolist() == [258]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_control_message_arrives(version: int) -> None:
    up = PathUp(address=A, ufrag="abc", ssrcs=[1, 2**32 - 1], spare_ms=0.5)
    assert Reader[ToWorker](ToWorker).read(encode(up, None, version)) == Control(up, None)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_control_message_may_have_no_fields(version: int) -> None:
    assert decode(encode(Health(), 7, version)) == Control(Health(), 7)


# --- what does not add up is refused ---


@pytest.mark.parametrize("version", [0, VERSION + 1, -1, "1", None, 2**60])
def test_another_version_names_both(version: object) -> None:
    with pytest.raises(OtherVersionError) as refused:
        decode(msgpack.packb([version, "control", {"type": "health"}]))
    assert f"wire version {version!r}" in str(refused.value)
    assert f"speaks {OLDEST} to {VERSION}" in str(refused.value)


@pytest.mark.parametrize("head", [None, 1, "data", {}, {"a": 1}, [], [VERSION], [VERSION, "data"]])
def test_a_header_of_another_shape_is_refused(head: object) -> None:
    with pytest.raises(WireError, match="not an array"):
        decode(msgpack.packb(head))


@pytest.mark.parametrize("kind", ["Data", "", None, 7, b"data", ["data"]])
def test_an_unknown_kind_is_refused(kind: object) -> None:
    with pytest.raises(WireError, match="unknown kind"):
        decode(msgpack.packb([3, kind, {"type": "health", "request": 1}]))


@pytest.mark.parametrize("kind", ["Data", "", "control", 1.5, True, b"data", ["data"]])
def test_a_request_that_is_no_number_is_refused(kind: object) -> None:
    with pytest.raises(WireError, match="unknown kind"):
        decode(msgpack.packb([4, kind, {"type": "health"}]))


@pytest.mark.parametrize("fields", [None, [], "type", {}, {"type": 1}, {"type": None}, {"Type": "x"}, {"type": b"x"}])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_control_message_without_a_type_is_refused(fields: object, version: int) -> None:
    with pytest.raises(WireError, match="names its type"):
        decode(control_message(version, fields))


@pytest.mark.parametrize(
    "said", [[3, "control", {"type": "health", "request": 1}, b""], [4, 1, {"type": "health"}, b""]]
)
def test_a_control_message_with_a_body_is_refused(said: list[object]) -> None:
    with pytest.raises(WireError, match="names its type"):
        decode(msgpack.packb(said))


@pytest.mark.parametrize(
    ("lengths", "addresses"),
    [("ab", A), (b"\1\0", "x" * 18), (None, A), ([1], A), (b"\1\0", None), (1, 1)],
)
def test_data_fields_of_another_type_are_refused(lengths: object, addresses: object) -> None:
    with pytest.raises(WireError, match="lengths, addresses and one body"):
        decode(data_message(lengths, addresses, b"x"))


@pytest.mark.parametrize("bodies", [[], [b"a", b""], ["a"]], ids=["none", "two", "text"])
def test_a_data_message_has_exactly_one_body(bodies: list[object]) -> None:
    with pytest.raises(WireError, match="one body"):
        decode(data_message(b"\1\0", A, *bodies))


def test_half_a_length_is_refused() -> None:
    with pytest.raises(WireError, match="16 bit"):
        decode(data_message(b"\1\0\1", A, b"a"))


@pytest.mark.parametrize("addresses", [b"", A[:-1], A + b"\0", A + B])
def test_addresses_and_lengths_must_be_as_many(addresses: bytes) -> None:
    with pytest.raises(WireError, match="1 datagrams with"):
        decode(data_message(b"\1\0", addresses, b"a"))


@pytest.mark.parametrize("body", [b"", b"abcd", b"abcdef"])
def test_lengths_that_do_not_add_up_are_refused(body: bytes) -> None:
    with pytest.raises(WireError, match=f"{len(body)} bytes"):
        decode(data_message(b"\2\0\3\0", A + B, body))


def test_lengths_whose_sum_would_wrap_16_bits_are_refused() -> None:
    with pytest.raises(WireError, match="do not add up"):
        decode(data_message(b"\xff\xff\2\0", A + B, b"a"))


def test_too_many_datagrams_are_refused() -> None:
    with pytest.raises(WireError, match="1025 datagrams"):
        decode(pack_batch([(A, b"")] * (MAX_DATAGRAMS + 1)))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 5000,  # nested beyond any stack
        b"\x81\x90\x01",  # an array as a key
        msgpack.packb([3, "control", {"type": "x"}]) + b"\0",
        msgpack.packb([4, 1, {"type": "x"}]) + b"\0",
        b"\x93\x03\xa7control\x81\xa4type\xa1\xff",  # not UTF-8
    ],
)
def test_what_is_not_msgpack_is_refused(head: bytes) -> None:
    with pytest.raises(WireError, match=r"^not "):
        decode(head)


HEADS = [b"\x97\x03\xa4data", b"\x93\x03\xa7control", b"\x97\x04\xa4data", b"\x93\x04\xc0", b"\x93\x04\x01"]


def test_random_bytes_raise_nothing_but_wire_errors() -> None:
    rng = random.Random(5)
    genuine = pack_batch([(A, b"abc"), (B, b"de")])
    for _ in range(5000):
        noise = rng.randbytes(rng.randrange(0, 64))
        mutated = bytearray(genuine)
        mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        for said in (noise, *(head + noise for head in HEADS), bytes(mutated)):
            try:
                message = decode(said)
            except WireError:
                continue
            if isinstance(message, Data):
                assert sum(len(datagram) for _, datagram in message.datagrams()) == len(message.body)


def test_a_batch_in_parts_is_the_same_batch() -> None:
    batch = [(bytes([i]) * 18, bytes(i % 7)) for i in range(100)]
    whole = decode(pack_batch(batch, stamp_ns=5, held_ns=6))
    assert isinstance(whole, Data)
    parts = whole.parts(32)
    assert [len(part) for part in parts] == [32, 32, 32, 4]
    assert [each for part in parts for each in part.datagrams()] == batch
    assert [part.stamp_ns for part in parts] == [5, 0, 0, 0]
    assert whole.parts(100) == [whole]
