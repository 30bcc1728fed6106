"""The 18 byte form of an address."""

from __future__ import annotations

import random

import pytest

from wire import address


@pytest.mark.parametrize(
    ("host", "port", "shown"),
    [
        ("0.0.0.0", 0, "0.0.0.0:0"),
        ("192.0.2.1", 3478, "192.0.2.1:3478"),
        ("255.255.255.255", 65535, "255.255.255.255:65535"),
        ("::", 0, "[::]:0"),
        ("::1", 1, "[::1]:1"),
        ("2001:db8::ff", 3478, "[2001:db8::ff]:3478"),
    ],
)
def test_an_address_survives_the_round_trip(host: str, port: int, shown: str) -> None:
    packed = address.pack(host, port)
    assert len(packed) == address.SIZE == 18
    assert address.unpack(packed) == (host, port)
    assert address.is_ipv4(packed) is (":" not in host)
    assert address.show(packed) == shown


def test_random_addresses_survive_the_round_trip() -> None:
    rng = random.Random(18)
    for _ in range(2000):
        packed = rng.randbytes(18)
        assert address.pack(*address.unpack(packed)) == packed


def test_an_ipv4_address_and_its_mapped_form_are_one() -> None:
    assert address.pack("::ffff:192.0.2.1", 5) == address.pack("192.0.2.1", 5)
    assert address.unpack(address.pack("::ffff:192.0.2.1", 5)) == ("192.0.2.1", 5)


@pytest.mark.parametrize(
    "host", ["", "localhost", "192.0.2", "192.0.2.256", "192.0.2.1.", "2001:db8::g", ":::", "1:2", "fe80::1%lo"]
)
def test_what_is_not_numeric_is_refused(host: str) -> None:
    with pytest.raises(OSError, match=r".+"):
        address.pack(host, 1)
