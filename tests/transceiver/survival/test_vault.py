"""The vault: whatever a kill leaves half written, the state before or the new one is whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transceiver.survival.vault import Vault, size_of

_COPY = 256


def size(slots: int) -> int:
    return size_of(slots, _COPY, 0)


def vault(memory: bytearray) -> Vault:
    return Vault(memoryview(memory), copy_bytes=_COPY, parts_bytes=0)


def test_slots_keep_what_was_put_last_and_nothing_of_others() -> None:
    memory = bytearray(size(3))
    one = vault(memory)
    assert [one.get(slot) for slot in range(one.slots)] == [None] * 3
    for n in range(5):
        one.put(0, b"a%d" % n)
        one.put(2, b"c%d" % n * 10)
    assert [vault(memory).get(slot) for slot in range(3)] == [b"a4", None, b"c4" * 10]
    one.clear(0)
    assert [vault(memory).get(slot) for slot in range(3)] == [None, None, b"c4" * 10]
    one.put(0, b"")
    assert vault(memory).get(0) == b""


def test_a_state_that_is_too_large_leaves_the_one_before() -> None:
    memory = bytearray(size(1))
    one = vault(memory)
    one.put(0, b"x" * one.most_bytes)
    with pytest.raises(ValueError, match="bytes"):
        one.put(0, b"y" * (one.most_bytes + 1))
    assert one.get(0) == b"x" * one.most_bytes


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.binary(max_size=200), st.data())
def test_a_write_that_is_cut_off_anywhere_leaves_one_of_the_two(
    before: list[bytes], new: bytes, data: st.DataObject
) -> None:
    memory = bytearray(size(1))
    one = vault(memory)
    for state in before:
        one.put(0, state)
    old = bytes(memory)
    one.put(0, new)
    changed = [i for i, (a, b) in enumerate(zip(old, memory, strict=True)) if a != b]
    # Any of the bytes may have come to memory, and any not: nothing is said about their order.
    torn = bytearray(old)
    for i in data.draw(st.sets(st.sampled_from(changed))) if changed else ():
        torn[i] = memory[i]
    assert vault(torn).get(0) in (before[-1], new)


def test_counters_are_a_slots_own_and_right_whatever_is_put() -> None:
    memory = bytearray(size(2))
    one = vault(memory)
    first, second = one.counters(1)
    for n in range(3):
        first[0], second[0] = 1000 + n, (1 << 32) - 1 - n
        one.put(0, b"\xff" * one.most_bytes)
        one.put(1, b"\xff" * one.most_bytes)
        assert [counter[0] for counter in vault(bytearray(memory)).counters(1)] == [1000 + n, (1 << 32) - 1 - n]
    assert [counter[0] for counter in one.counters(0)] == [0, 0]
    assert one.get(1) == b"\xff" * one.most_bytes


@given(st.binary(min_size=size(1), max_size=size(1)), st.binary(max_size=_COPY - 24))
def test_garbage_is_no_state_and_can_be_written_over(garbage: bytes, new: bytes) -> None:
    memory = bytearray(garbage)
    one = vault(memory)
    assert one.get(0) is None
    one.clear(0)
    one.put(0, new)
    assert vault(memory).get(0) == new
