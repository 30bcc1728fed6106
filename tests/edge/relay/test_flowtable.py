"""The flow table against a dictionary."""

from __future__ import annotations

import random

import numpy as np
import pytest

from edge.relay.flowtable import NOBODY, PROBES, FlowTable, words


def array(addresses: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 18)


def found(table: FlowTable, addresses: list[bytes], now: float = 0.0) -> list[int]:
    owners: list[int] = table.find(words(array(addresses)), now).tolist()
    return owners


@pytest.mark.parametrize("capacity", [1, 2, PROBES, 64, 1000, 1 << 12])
def test_it_agrees_with_a_dictionary(capacity: int) -> None:
    rng = random.Random(capacity)
    table, oracle = FlowTable(capacity), dict[bytes, int]()
    # Few addresses, so that each is put, changed and removed many times, and neighbours in every byte.
    known = [rng.randbytes(18) for _ in range(max(4, capacity))]
    known += [bytes([known[0][i] ^ (i == at) for i in range(18)]) for at in range(18)]
    refused = 0
    for step in range(6000):
        address = rng.choice(known)
        match rng.randrange(3):
            case 0:
                owner = rng.randrange(4)
                if table.put(address, owner, step):
                    oracle[address] = owner
                else:
                    refused += 1
                    assert address not in oracle
            case 1:
                assert table.remove(address) is (oracle.pop(address, None) is not None)
            case _:
                asked = rng.choices(known, k=rng.randrange(1, 20))
                assert found(table, asked, step) == [oracle.get(a, NOBODY) for a in asked]
        assert len(table) == len(oracle)
    assert found(table, known) == [oracle.get(a, NOBODY) for a in known]
    # Where the seed of the table decides whether it ever got full, either is right.
    assert refused > 0 or capacity >= 1000


@pytest.mark.parametrize("capacity", [2, 64, 100, 1024])
def test_it_never_holds_more_than_about_half_of_its_places(capacity: int) -> None:
    table = FlowTable(capacity)
    places = 1 << (capacity - 1).bit_length()
    taken = sum(table.put(i.to_bytes(18, "big"), 1, 0.0) for i in range(4 * capacity))
    assert taken == len(table) <= places // 2 + 1
    # The seed of the table may have left places, but not for so many more.
    more = sum(table.put(bytes([0xFF]) + i.to_bytes(17, "big"), 1, 0.0) for i in range(4 * capacity))
    assert more < 4 * capacity
    assert taken + more == len(table) <= places // 2 + 1


def test_a_full_table_still_changes_what_it_knows_and_has_room_again() -> None:
    table = FlowTable(64)
    held = [a for a in (i.to_bytes(18, "big") for i in range(200)) if table.put(a, 1, 0.0)]
    assert table.put(held[0], 2, 0.0)
    assert found(table, held[:2]) == [2, 1]
    assert table.remove(held[0])
    assert len(table) == len(held) - 1
    assert table.put(held[0], 3, 0.0)


def test_addresses_that_differ_in_one_bit_are_different_flows() -> None:
    table = FlowTable()
    address = bytes(range(18))
    near = [(int.from_bytes(address, "big") ^ 1 << bit).to_bytes(18, "big") for bit in range(144)]
    assert table.put(address, 7, 0.0)
    assert set(found(table, near)) == {NOBODY}
    for owner, other in enumerate(near):
        assert table.put(other, owner, 0.0)
    assert found(table, [*near, address]) == [*range(144), 7]


def test_a_large_batch_keeps_its_order() -> None:
    rng = random.Random(3)
    table = FlowTable(1 << 14)
    flows = {rng.randbytes(18): i for i in range(4000)}
    assert all(table.put(address, owner, 0.0) for address, owner in flows.items())
    asked = [*flows, *(rng.randbytes(18) for _ in range(1000))]
    rng.shuffle(asked)
    assert found(table, asked) == [flows.get(address, NOBODY) for address in asked]


def test_nothing_asked_is_nothing_found() -> None:
    assert found(FlowTable(), []) == []


def test_an_all_zero_address_is_a_flow_like_any_other() -> None:
    table = FlowTable()
    assert found(table, [bytes(18)]) == [NOBODY]
    assert table.put(bytes(18), 0, 0.0)
    assert found(table, [bytes(18)]) == [0]


def test_idle_are_those_that_were_neither_put_nor_found_since() -> None:
    table = FlowTable()
    a, b, c, d = (bytes([i]) * 18 for i in range(4))
    for address in (a, b, c, d):
        assert table.put(address, 1, 10.0)
    found(table, [b], 20.0)
    assert table.put(c, 1, 20.0)
    assert table.remove(d)
    assert table.idle(10.0) == []
    assert table.idle(15.0) == [a]
    assert sorted(table.idle(30.0)) == [a, b, c]


def test_asking_for_a_stranger_keeps_nobody_alive() -> None:
    table = FlowTable(16)
    assert table.put(bytes(18), 1, 0.0)
    found(table, [bytes([i]) * 18 for i in range(1, 100)], 50.0)
    assert table.idle(1.0) == [bytes(18)]


def test_forgetting_twice_is_said() -> None:
    table = FlowTable()
    assert table.put(bytes(18), 1, 0.0)
    assert table.remove(bytes(18))
    assert not table.remove(bytes(18))
    assert len(table) == 0
