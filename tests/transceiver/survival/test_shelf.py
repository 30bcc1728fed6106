"""The shelf: a state's parts are written before it, and are whole whatever a kill leaves half done."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transceiver.survival.shelf import Place, Shelf, parts_at
from transceiver.survival.vault import Vault, size_of

_COPY, _PARTS, _PAGE = 512, 24 * 4096, 4096


class Kept:
    """One slot of a vault, with its shelf; ``free`` really empties memory."""

    def __init__(self, memory: bytearray) -> None:
        self.memory = memory
        self.vault = Vault(memoryview(memory), copy_bytes=_COPY, parts_bytes=_PARTS, free=self._free)
        self.shelf = Shelf(self.vault, 0)

    def _free(self, at: int, size: int) -> None:
        assert (at - 2 * _COPY) % _PAGE == 0 or size == 2 * _COPY
        self.memory[at : at + size] = bytes(size)

    def put(self, parts: list[bytes], *, piece_bytes: int = 1 << 20) -> None:
        self.shelf.offer(parts)
        while not self.shelf.work(piece_bytes):
            pass
        self.put_state(parts)
        self.shelf.keep_only(parts)

    def put_state(self, parts: list[bytes]) -> None:
        self.vault.put(0, b"".join(b"%d,%d,%d;" % place for place in self.shelf.places(parts)))

    def get(self) -> list[bytes] | None:
        """The parts of the last state, as another process finds them."""
        state = self.vault.get(0)
        if state is None:
            return None
        places: list[Place] = [tuple(map(int, text.split(b","))) for text in state.split(b";")[:-1]]  # type: ignore[misc]
        return parts_at(self.vault, 0, places)


def a_part(seed: int) -> bytes:
    chance = random.Random(seed)
    return chance.randbytes(chance.randrange(1, 3 * _PAGE))


def torn(before: bytes, after: bytes, chance: np.random.Generator) -> bytearray:
    """Memory of which any of the changed bytes have been written, and any not."""
    written = chance.random(len(before)) < 0.5
    return bytearray(np.where(written, np.frombuffer(after, np.uint8), np.frombuffer(before, np.uint8)).tobytes())


@settings(max_examples=40)  # each looks at all memory at each step
@given(
    st.lists(st.lists(st.integers(0, 5), max_size=5), min_size=2, max_size=5),
    st.integers(_PAGE // 2, 3 * _PAGE),
    st.integers(0, 1 << 32),
)
def test_a_kill_at_any_moment_leaves_the_state_before_or_the_new_one_with_all_its_parts(
    states: list[list[int]], piece_bytes: int, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    pool = [a_part(seed) for seed in range(6)]
    kept = Kept(bytearray(size_of(1, _COPY, _PARTS)))
    last: list[bytes] = []
    kept.put(last)
    seen = bytes(kept.memory)

    def finds(*either: list[bytes]) -> None:
        """What has been done since the last time may be half done."""
        nonlocal seen
        now = bytes(kept.memory)
        assert Kept(torn(seen, now, chance)).get() in either
        assert Kept(bytearray(now)).get() in either
        seen = now

    for wanted in ([pool[i] for i in state] for state in states):
        kept.shelf.offer(wanted)
        while not kept.shelf.work(piece_bytes):
            finds(last)
        finds(last)
        kept.put_state(wanted)
        finds(last, wanted)
        assert kept.get() == wanted
        kept.shelf.keep_only(wanted)
        finds(wanted)
        last = wanted


def test_a_part_that_stays_is_not_written_again() -> None:
    kept = Kept(bytearray(size_of(1, _COPY, _PARTS)))
    stays, goes = a_part(1), a_part(2)
    kept.put([stays, goes])
    (place, _) = kept.shelf.places([stays, goes])
    at = 2 * _COPY + place[0]
    kept.memory[at] ^= 1  # where it would be seen
    kept.put([stays, a_part(3)])
    with pytest.raises(ValueError, match="not whole"):
        kept.get()


def test_what_has_no_room_is_refused_and_leaves_what_there_is() -> None:
    kept = Kept(bytearray(size_of(1, _COPY, _PARTS)))
    first = [bytes([1]) * (10 * _PAGE), bytes([2]) * (10 * _PAGE)]
    kept.put(first)
    with pytest.raises(ValueError, match="too large"):
        kept.shelf.offer([bytes([3]) * (5 * _PAGE)])
    assert kept.get() == first
    kept.vault.parts_left = _PAGE - 1
    with pytest.raises(ValueError, match="all calls"):
        kept.shelf.offer([b"4"])
    kept.put(first[1:])
    again = [first[1], bytes([5]) * (10 * _PAGE)]
    kept.put(again)
    assert kept.get() == again


def test_all_room_is_given_back() -> None:
    kept = Kept(bytearray(size_of(1, _COPY, _PARTS)))
    left = kept.vault.parts_left
    kept.put([a_part(seed) for seed in range(4)])
    assert kept.vault.parts_left < left
    kept.shelf.clear()
    assert kept.vault.parts_left == left
    assert not any(kept.memory[2 * _COPY :])


def test_the_next_process_writes_on_where_the_last_one_was() -> None:
    kept = Kept(bytearray(size_of(1, _COPY, _PARTS)))
    parts = [a_part(seed) for seed in range(3)]
    kept.put(parts)
    heir = Kept(kept.memory)
    found = heir.get()
    assert found == parts
    heir.shelf.take_up(found, kept.shelf.places(parts))
    more = [*found[1:], a_part(9)]
    heir.put(more)
    assert heir.get() == more


@given(st.lists(st.tuples(*[st.integers(-(2**40), 2**40)] * 3), max_size=4))
def test_places_that_are_none_are_refused(places: list[Place]) -> None:
    kept = Kept(bytearray(size_of(1, _COPY, _PARTS)))
    try:
        found = parts_at(kept.vault, 0, places)
    except ValueError:
        return
    assert all(not any(part) for part in found)
