"""Claims about every ufrag, message and batch, whatever is in it."""

from __future__ import annotations

import typing
from typing import Any

import numpy as np
import pytest
from any_message import any_of
from hypothesis import assume, given
from hypothesis import strategies as st

from wire import address, frames, stun, ufrag
from wire.control import Control, Reader, encode
from wire.frames import Data
from wire.messages import Hello, Message, Request, ToSignaling, ToTransceiver, ToWorker
from wire.versions import OLDEST, VERSION

KEYS = st.binary(min_size=16, max_size=16)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
PORTS = st.integers(0, 65535)
BATCHES = st.lists(st.tuples(st.binary(min_size=18, max_size=18), st.binary(max_size=40)), max_size=20)
NANOSECONDS = st.integers(0, 2**64 - 1)
UNIONS: dict[str, Any] = {"transceiver": ToTransceiver, "signaling": ToSignaling, "worker": ToWorker}
SAID = [(to, each) for to, union in UNIONS.items() for each in typing.get_args(union)]


# --- ufrags


@given(
    transceiver=st.integers(0, ufrag.MAX_TRANSCEIVER),
    key_id=st.integers(0, ufrag.MAX_KEY_ID),
    key=KEYS,
    random=st.integers(0, 2**72 - 1),
)
def test_a_ufrag_says_what_was_sealed_into_it_and_so_does_its_call_id(
    transceiver: int, key_id: int, key: bytes, random: int
) -> None:
    sealed = ufrag.seal(transceiver, key_id, key, random=random)
    route = ufrag.open_sealed(sealed.encode(), {key_id: key})
    assert route is not None
    assert (route.transceiver, route.key_id) == (transceiver, key_id)
    assert ufrag.transceiver_of(sealed.encode()) == transceiver
    assert ufrag.key_id(sealed.encode()) == key_id
    assert ufrag.ufrag_of_call(ufrag.call_id(sealed)) == sealed.encode()


@given(key=KEYS, other=KEYS, transceiver=st.integers(0, ufrag.MAX_TRANSCEIVER), noise=st.binary(max_size=30))
def test_nothing_else_opens(key: bytes, other: bytes, transceiver: int, noise: bytes) -> None:
    assume(key != other)
    sealed = ufrag.seal(transceiver, 3, key).encode()
    assert ufrag.open_sealed(sealed, {3: other}) is None
    assert ufrag.open_sealed(noise, {3: key}) is None
    for at in range(0, len(sealed), 5):
        if noise:
            changed = sealed[:at] + noise[:1] + sealed[at + 1 :]
            assert changed == sealed or ufrag.open_sealed(changed, {3: key}) is None


# --- STUN


@given(
    name=st.binary(max_size=60),
    password=st.binary(min_size=1, max_size=40),
    other=st.binary(min_size=1, max_size=40),
    tie_breaker=st.none() | st.integers(0, 2**64 - 1),
    nominate=st.booleans(),
    priority=st.integers(0, 2**32 - 1),
    host=ADDRESSES,
    port=PORTS,
)
def test_a_check_and_its_response_are_authentic_to_who_has_the_password_and_to_nobody_else(
    name: bytes,
    password: bytes,
    other: bytes,
    tie_breaker: int | None,
    nominate: bool,
    priority: int,
    host: str,
    port: int,
) -> None:
    # HMAC fills a short key up with zeros.
    assume(password.rstrip(b"\0") != other.rstrip(b"\0"))
    request = stun.parse(
        stun.binding_request(name, password, tie_breaker=tie_breaker, nominate=nominate, priority=priority)
    )
    assert request is not None
    assert stun.server_ufrag(request) == (name.partition(b":")[0] if b":" in name else None)
    assert (stun.USE_CANDIDATE in request.attributes) == (nominate and tie_breaker is not None)
    response = stun.parse(stun.binding_response(request, address.pack(host, port), password))
    assert response is not None
    assert response.transaction == request.transaction
    for message in (request, response):
        assert stun.integrity_is_valid(message, password)
        assert not stun.integrity_is_valid(message, other)


@given(st.binary(max_size=200), st.booleans())
def test_whatever_comes_is_a_message_within_its_datagram_or_none(noise: bytes, headed: bool) -> None:
    if headed:
        noise = noise[: len(noise) // 4 * 4]
        noise = b"\0\1" + len(noise).to_bytes(2, "big") + stun.COOKIE.to_bytes(4, "big") + bytes(12) + noise
    message = stun.parse(noise)
    if message is not None:
        assert sum(map(len, message.attributes.values())) <= len(noise)
        assert not stun.integrity_is_valid(message, b"a password")


@given(ADDRESSES, PORTS)
def test_an_address_is_read_as_it_was_packed(host: str, port: int) -> None:
    there, number = address.unpack(address.pack(host, port))
    assert address.pack(there, number) == address.pack(host, port)
    assert number == port


# --- batches


@given(BATCHES, NANOSECONDS, NANOSECONDS, st.integers(OLDEST, VERSION), st.integers(1, 30))
def test_a_batch_arrives_whole_in_every_version_and_in_parts_of_any_size(
    batch: list[tuple[bytes, bytes]], stamp_ns: int, held_ns: int, version: int, most: int
) -> None:
    said = frames.pack_batch(batch, stamp_ns, held_ns, version=version)
    message = Reader[Message](ToWorker).read(said)
    assert isinstance(message, Data)
    assert (message.datagrams(), message.stamp_ns, message.held_ns) == (batch, stamp_ns, held_ns)
    parts = message.parts(most)
    assert [each for part in parts for each in part.datagrams()] == batch
    assert all(len(part) <= most for part in parts)
    assert sum(part.stamp_ns for part in parts) == stamp_ns
    addresses = b"".join(client for client, _ in batch)
    lengths = np.array([len(datagram) for _, datagram in batch], np.uint16)
    body = b"".join(datagram for _, datagram in batch)
    assert frames.data(addresses, lengths, body) == frames.pack_batch(batch)


# --- control messages


@pytest.mark.parametrize(("to", "kind"), SAID, ids=lambda each: each if isinstance(each, str) else each.__name__)
def test_every_control_message_arrives_as_it_was_said_in_every_version(to: str, kind: type[Message]) -> None:
    reader: Reader[Message] = Reader(UNIONS[to])
    numbers = st.integers(0, 2**63) if issubclass(kind, Request) else st.none() | st.integers(0, 2**63)

    @given(any_of(kind), numbers, st.integers(OLDEST, VERSION))
    def arrives(message: Message, number: int | None, version: int) -> None:
        said = encode(message, number, version)
        assert said[1] == (3 if kind is Hello else version)
        assert reader.read(said) == Control(message, number)

    arrives()
