"""The sealed ufrag: what it says, what it refuses, and the golden vectors that the kernel's form passes too."""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from typing import Any

import pytest
from paths import TESTS

from edge.xdp.placement import slots
from wire.ufrag import (
    ALPHABET,
    LENGTH,
    MAX_KEY_ID,
    MAX_TRANSCEIVER,
    SLOTS,
    Route,
    call_id,
    home_slot,
    open_sealed,
    seal,
    ufrag_of_call,
)

GOLDEN: dict[str, Any] = json.loads((TESTS / "vectors/ufrag.json").read_text())
GOLDEN_KEYS = {int(i): bytes.fromhex(key) for i, key in GOLDEN["keys"].items()}
KEY = bytes(range(16))


@pytest.mark.parametrize("vector", GOLDEN["vectors"], ids=lambda v: v["ufrag"])
def test_golden_vector_is_sealed_and_opened(vector: dict[str, Any]) -> None:
    key_id = vector["key_id"]
    made = seal(vector["transceiver"], key_id, GOLDEN_KEYS[key_id], random=int(vector["random"], 16))
    assert made == vector["ufrag"]
    assert open_sealed(made.encode(), GOLDEN_KEYS) == Route(vector["transceiver"], vector["slot"], key_id)


def test_every_field_survives_the_round_trip() -> None:
    for key_id in range(MAX_KEY_ID + 1):
        for transceiver in (0, 1, 63, 64, 4095, 4096, MAX_TRANSCEIVER):
            route = open_sealed(seal(transceiver, key_id, KEY).encode(), {key_id: KEY})
            assert route is not None
            assert (route.transceiver, route.key_id) == (transceiver, key_id)
            assert 0 <= route.slot < SLOTS


def test_the_alphabet_and_length_are_those_of_ice() -> None:
    # RFC 8839 section 5.4: 4 to 256 of ALPHA / DIGIT / "+" / "/".
    assert len(ALPHABET) == len(set(ALPHABET)) == 64
    for _ in range(200):
        assert re.fullmatch(r"[A-Za-z0-9+/]{24}", seal(secrets.randbelow(MAX_TRANSCEIVER + 1), 3, KEY))


def test_every_other_character_in_every_place_is_refused() -> None:
    sealed = seal(4711, 2, KEY, random=0x123456789ABCDEF012).encode()
    every_key = dict.fromkeys(range(MAX_KEY_ID + 1), KEY)
    assert open_sealed(sealed, every_key) is not None
    for at in range(LENGTH):
        for byte in range(256):
            if byte != sealed[at]:
                assert open_sealed(sealed[:at] + bytes([byte]) + sealed[at + 1 :], every_key) is None


def test_another_key_is_refused() -> None:
    assert open_sealed(seal(1, 1, KEY).encode(), {1: bytes(16)}) is None


def test_an_unknown_key_id_is_refused() -> None:
    sealed = seal(1, 1, KEY).encode()
    assert open_sealed(sealed, {}) is None
    assert open_sealed(sealed, {2: KEY}) is None


def test_two_keys_live_at_once() -> None:
    old, new = seal(7, 1, KEY).encode(), seal(7, 2, bytes(16)).encode()
    keys = {1: KEY, 2: bytes(16)}
    assert [route.key_id for route in (open_sealed(old, keys), open_sealed(new, keys)) if route] == [1, 2]


def test_another_version_is_refused() -> None:
    sealed = seal(1, 0, KEY).encode()
    for version in (0, 2, 3, 4, 5, 6, 7):
        assert open_sealed(ALPHABET[version << 3].encode() + sealed[1:], {0: KEY}) is None


def test_another_length_is_refused() -> None:
    sealed = seal(1, 1, KEY).encode()
    for length in range(LENGTH):
        assert open_sealed(sealed[:length], {1: KEY}) is None
    assert open_sealed(sealed + b"A", {1: KEY}) is None
    assert open_sealed(sealed * 2, {1: KEY}) is None


def test_invented_ufrags_are_refused() -> None:
    for _ in range(2000):
        assert open_sealed(secrets.token_bytes(LENGTH), {1: KEY}) is None
        invented = "J" + "".join(secrets.choice(ALPHABET) for _ in range(LENGTH - 1))
        assert open_sealed(invented.encode(), {1: KEY}) is None


def test_no_two_calls_share_a_ufrag() -> None:
    assert len({seal(1, 1, KEY) for _ in range(5000)}) == 5000


def test_at_least_48_bits_are_random() -> None:
    # Every one of the 72 bits in characters 4 to 15 is seen both set and clear in 200 ufrags, but for one in 2^192.
    values = []
    for _ in range(200):
        value = 0
        for c in seal(1, 1, KEY)[4:16]:
            value = value << 6 | ALPHABET.index(c)
        values.append(value)
    flipping = sum(1 for bit in range(72) if len({value >> bit & 1 for value in values}) == 2)
    assert flipping == 72


def test_slots_are_spread() -> None:
    routes = [open_sealed(seal(1, 1, KEY).encode(), {1: KEY}) for _ in range(4000)]
    assert len({route.slot for route in routes if route}) > SLOTS * 0.95


def test_call_id_is_the_ufrag_in_characters_that_urls_leave_alone() -> None:
    for _ in range(200):
        sealed = seal(MAX_TRANSCEIVER, 7, KEY)
        assert re.fullmatch(r"rtc_[A-Za-z0-9_-]{24}", call_id(sealed))
        assert ufrag_of_call(call_id(sealed)) == sealed.encode()


@pytest.mark.parametrize(
    "call",
    [
        "",
        "rtc_",
        "rtc_short",
        "rtc_" + "A" * 25,
        "RTC_" + "A" * 24,
        "A" * 28,
        "rtc_" + "\u00e9" * 24,
        "rtc_" + "\ud800" * 24,
    ],
)
def test_what_cannot_be_a_call_id_has_no_ufrag(call: str) -> None:
    assert ufrag_of_call(call) is None


@pytest.mark.parametrize(
    ("transceiver", "key_id", "named"),
    [
        (-1, 1, "transceiver id -1"),
        (MAX_TRANSCEIVER + 1, 1, "transceiver id 262144"),
        (1, -1, "key id -1"),
        (1, 8, "key id 8"),
    ],
)
def test_a_field_that_does_not_fit_is_named(transceiver: int, key_id: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        seal(transceiver, key_id, KEY)


def test_a_ufrag_of_a_wanted_slot() -> None:
    key = bytes(16)
    for slot in (0, 7, 255):
        route = open_sealed(seal(5, 1, key, slot=slot).encode(), {1: key})
        assert route is not None
        assert (route.transceiver, route.slot) == (5, slot)


@pytest.mark.parametrize("workers", range(1, 17))
def test_transceivers_in_a_row_come_by_different_workers(workers: int) -> None:
    cpus = slots(range(workers))
    for first in (1, 100, 262_000):
        shares = Counter(cpus[home_slot(first + i)] for i in range(2 * workers))
        assert max(shares.values()) - min(shares.values()) <= 1
    shares = Counter(cpus[home_slot(1 + 256 * host)] for host in range(4 * workers))
    assert max(shares.values()) - min(shares.values()) <= 1
