"""The head that media carries between hosts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import address
from wire.encapsulation import (
    FIRST_PORT,
    HEAD_BYTES,
    PORTS,
    PROBE_BYTES,
    Head,
    Probe,
    Probes,
    digest,
    new_ticket,
    parse,
    port_of,
)
from wire.keys import ClusterKeys

NUMBERS, TICKETS = st.integers(0, 2**32 - 1), st.binary(min_size=8, max_size=8)


@given(number=NUMBERS, ticket=TICKETS, payload=st.binary(max_size=40))
def test_a_head_is_read_as_it_was_written(number: int, ticket: bytes, payload: bytes) -> None:
    said = Head(number, ticket).dump()
    assert len(said) == HEAD_BYTES
    assert parse(said + payload) == (number, ticket)


def test_its_bytes_are_in_network_order() -> None:
    assert Head(0x01020304, b"a ticket").dump() == bytes([1, 0, 0, 0, 1, 2, 3, 4]) + b"a ticket"


@given(st.binary(max_size=15))
def test_what_is_too_short_has_none(said: bytes) -> None:
    assert parse(said) is None


def test_another_version_and_bits_without_a_meaning_are_refused() -> None:
    said = Head(7, b"a ticket").dump()
    for at in range(4):
        assert parse(said[:at] + bytes([said[at] ^ 2]) + said[at + 1 :]) is None


@given(NUMBERS)
def test_a_flow_has_a_port_of_the_edge_s(number: int) -> None:
    assert port_of(number) == FIRST_PORT + number % 1024
    assert FIRST_PORT <= port_of(number) < FIRST_PORT + PORTS


def test_no_two_tickets_are_the_same() -> None:
    assert len({new_ticket() for _ in range(1000)}) == 1000


PROBES = Probes(ClusterKeys({1: bytes(16)}, 1, bytes(range(32))))
ASK = Probe("ask", True, 5, digest(b"edge"), 1234)
HERE, THERE = address.pack("10.0.0.1", 20000), address.pack("10.0.0.9", 20000)


@pytest.mark.parametrize("probe", [ASK, ASK._replace(kind="answer", open=False), ASK._replace(kind="hint")])
def test_a_probe_is_read_by_who_holds_the_keys(probe: Probe) -> None:
    said = PROBES.dump(probe, HERE)
    assert len(said) == PROBE_BYTES
    assert PROBES.read(said, HERE) == probe
    assert Probes(ClusterKeys({1: bytes(16)}, 1, bytes(32))).read(said, HERE) is None


def test_a_probe_is_of_one_address_and_cannot_be_altered() -> None:
    said = PROBES.dump(ASK, HERE)
    assert PROBES.read(said, THERE) is None
    assert PROBES.read(said + b"x", HERE) is None
    assert PROBES.read(said[:-1], HERE) is None
    for at in range(len(said)):
        assert PROBES.read(said[:at] + bytes([said[at] ^ 1]) + said[at + 1 :], HERE) is None


@given(st.binary(max_size=80))
def test_nothing_else_is_a_probe(said: bytes) -> None:
    assert PROBES.read(said, HERE) is None
