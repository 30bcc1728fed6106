"""DATA chunks in any order become the messages that were sent; what is held meanwhile is bounded."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import pytest
from aiortc.rtcsctptransport import DataChunk
from hypothesis import given
from hypothesis import strategies as st
from sctp_packets import FIRST, LAST, UNORDERED, data, read

from rtc.sctp.reassembly import (
    MOST_BLOCKS,
    MOST_CHUNKS,
    MOST_STREAMS,
    MOST_WAITING,
    Message,
    Reassembly,
    ReassemblyState,
    Violation,
)

KIB = 1024
LAST_TSN = (1 << 32) - 100  # TSNs begin again at 0 soon


def reassembly(last_tsn: int = LAST_TSN, *, most_bytes: int = 64 * KIB, early_bytes: int = 64 * KIB) -> Reassembly:
    return Reassembly(last_tsn, most_bytes=most_bytes, early_bytes=early_bytes)


def a_chunk(
    offset: int, stream: int = 0, sequence: int = 0, user: bytes = b"x", flags: int = FIRST | LAST
) -> DataChunk:
    """``offset`` 1 is the first that is expected."""
    return read(data(LAST_TSN + offset, stream, sequence, user, flags))


def add_all(inbound: Reassembly, chunks: Iterable[DataChunk]) -> None:
    for chunk in chunks:
        inbound.add(chunk)


def said(messages: Iterable[Message]) -> list[bytes]:
    return [message.data for message in messages]


class Part(NamedTuple):
    """A message: its stream, whether it may overtake others, the sizes of its chunks, and how long each is held up."""

    stream: int
    loose: bool
    chunks: list[tuple[int, int]]


PARTS = st.builds(
    Part, st.integers(0, 2), st.booleans(), st.lists(st.tuples(st.integers(1, 20), st.integers(0, 100)), min_size=1)
)


def sent(parts: list[Part]) -> tuple[list[tuple[int, DataChunk]], dict[int, list[bytes]], list[bytes]]:
    """The chunks of these messages, with the times at which they come, the ordered messages by stream, and the others.
    No two messages are the same."""
    chunks: list[tuple[int, DataChunk]] = []
    ordered, unordered = defaultdict[int, list[bytes]](list), list[bytes]()
    for number, (stream, loose, pieces) in enumerate(parts):
        sequence = 0 if loose else len(ordered[stream])
        users = [number.to_bytes(2, "big") + bytes([i]) * size for i, (size, _) in enumerate(pieces)]
        for i, (user, (_, late)) in enumerate(zip(users, pieces, strict=True)):
            flags = FIRST * (i == 0) | LAST * (i == len(users) - 1) | UNORDERED * loose
            chunks.append((len(chunks) + late, a_chunk(len(chunks) + 1, stream, sequence, user, flags)))
        (unordered if loose else ordered[stream]).append(b"".join(users))
    return chunks, ordered, unordered


def moved(inbound: Reassembly) -> Reassembly:
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(inbound.export()), type=ReassemblyState)
    return Reassembly.take_up(state, most_bytes=64 * KIB, early_bytes=64 * KIB)


@given(st.lists(PARTS, max_size=25), st.sets(st.integers(0, 200)), st.sets(st.integers(0, 200)))
def test_whatever_the_order_of_chunks_every_message_comes_once_and_in_its_streams_order(
    parts: list[Part], twice: set[int], moves: set[int]
) -> None:
    chunks, ordered, unordered = sent(parts)
    inbound = reassembly()
    came: list[Message] = []
    for i, (_, chunk) in enumerate(sorted(chunks, key=lambda at: at[0])):
        came += inbound.add(chunk)
        if i in twice:
            came += inbound.add(chunk)
        if i in moves:
            before, inbound = inbound, moved(inbound)
            for name in ("held", "held_bytes", "last_tsn", "window_bytes"):
                assert getattr(inbound, name) == getattr(before, name)
            assert inbound.gaps() == before.gaps()
    by_stream = {s: [m.data for m in came if m.stream == s and m.data not in unordered] for s in ordered}
    assert by_stream == ordered
    assert sorted(m.data for m in came if m.data in unordered) == sorted(unordered)
    assert (inbound.held, inbound.held_bytes, inbound.gaps()) == (0, 0, [])


def test_a_sack_says_what_came_early_and_what_came_twice() -> None:
    inbound = reassembly()
    for offset in (1, 3, 4, 9, 7, 8, 3, 1):
        inbound.add(a_chunk(offset, sequence=offset - 1))
    assert inbound.last_tsn == LAST_TSN + 1
    assert inbound.gaps() == [(2, 3), (6, 8)]
    assert inbound.duplicates() == [LAST_TSN + 3, LAST_TSN + 1]
    assert inbound.duplicates() == []


def test_the_window_is_what_is_left_and_comes_back() -> None:
    inbound = reassembly()
    whole = inbound.window_bytes
    assert inbound.add(a_chunk(2, sequence=1, user=bytes(1000))) == []
    assert inbound.window_bytes == whole - 1000
    assert said(inbound.add(a_chunk(1, user=b"first"))) == [b"first", bytes(1000)]
    assert inbound.window_bytes == whole


def test_what_is_early_is_bounded_in_bytes_and_the_next_is_always_taken() -> None:
    inbound = reassembly()
    for offset in range(2, 200):
        inbound.add(a_chunk(offset, sequence=offset - 1, user=bytes(KIB)))
    assert inbound.held_bytes == 64 * KIB
    assert len(inbound.add(a_chunk(1))) == 65


def test_blocks_are_bounded_so_that_a_sack_fits_in_a_packet() -> None:
    inbound = reassembly()
    for offset in range(2, 2000, 2):
        inbound.add(a_chunk(offset, sequence=offset - 1))
    assert len(inbound.gaps()) == MOST_BLOCKS
    inbound.add(a_chunk(2 * MOST_BLOCKS + 1, sequence=2 * MOST_BLOCKS))  # a neighbour needs none
    assert len(inbound.gaps()) == MOST_BLOCKS


def test_messages_that_wait_for_an_earlier_one_are_bounded() -> None:
    inbound = reassembly()
    for offset in range(2, 3000):
        inbound.add(a_chunk(offset, sequence=offset - 1))
    assert inbound.held == MOST_WAITING
    assert len(inbound.add(a_chunk(1))) == MOST_WAITING + 1
    assert inbound.held == 0


def test_who_goes_on_past_the_bounds_is_told_apart_from_who_lost_a_packet() -> None:
    inbound = reassembly()
    with pytest.raises(Violation) as caught:
        add_all(inbound, (a_chunk(offset, sequence=offset - 1) for offset in range(2, 10_000)))
    assert caught.value.reason == "misordered"
    assert inbound.held <= MOST_WAITING


@pytest.mark.parametrize("size", [1, 1000])
def test_a_message_without_an_end_is_refused(size: int) -> None:
    inbound = reassembly()
    with pytest.raises(Violation) as caught:
        add_all(inbound, (a_chunk(i + 1, user=bytes(size), flags=0 if i else FIRST) for i in range(1 << 17)))
    assert caught.value.reason == "too_large"
    assert inbound.held <= MOST_CHUNKS + 1
    assert inbound.held_bytes <= 64 * KIB + 1000


def test_streams_are_bounded_and_a_closed_one_counts_no_more() -> None:
    inbound = reassembly()
    for i in range(MOST_STREAMS):
        inbound.add(a_chunk(i + 1, stream=i))
    inbound.reset(0)
    assert said(inbound.add(a_chunk(MOST_STREAMS + 1, stream=60000))) == [b"x"]
    with pytest.raises(Violation) as caught:
        inbound.add(a_chunk(MOST_STREAMS + 2, stream=60001))
    assert caught.value.reason == "too_many"


def test_a_stream_that_was_closed_begins_anew() -> None:
    inbound = reassembly()
    assert said(inbound.add(a_chunk(1, sequence=0))) == [b"x"]
    inbound.add(a_chunk(3, sequence=2, user=b"held"))
    inbound.reset(0)
    assert inbound.held_bytes == 0
    assert said(inbound.add(a_chunk(2, sequence=0, user=b"anew"))) == [b"anew"]


@pytest.mark.parametrize(
    "flags",
    [(FIRST, FIRST), (FIRST | LAST, 0), (FIRST | LAST, LAST), (0,)],
    ids=["a beginning amid a message", "a middle of none", "an end of none", "a middle first of all"],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_fragments_that_fit_together_in_no_way_are_a_violation(flags: tuple[int, ...], backwards: bool) -> None:
    inbound = reassembly()
    inbound.add(a_chunk(1))
    chunks = [a_chunk(i + 2, sequence=1, flags=f) for i, f in enumerate(flags)]
    with pytest.raises(Violation):
        add_all(inbound, reversed(chunks) if backwards else chunks)


def test_fragments_of_two_streams_are_no_message() -> None:
    inbound = reassembly()
    inbound.add(a_chunk(1, stream=1, flags=FIRST))
    with pytest.raises(Violation):
        inbound.add(a_chunk(2, stream=2, flags=LAST))


def test_a_chunk_without_data_is_a_violation() -> None:
    with pytest.raises(Violation):
        reassembly().add(a_chunk(1, user=b""))


def test_what_the_peer_gives_up_is_not_waited_for() -> None:
    inbound = reassembly()
    inbound.add(a_chunk(1, sequence=0, flags=FIRST))
    inbound.add(a_chunk(3, sequence=0, flags=0))
    assert inbound.add(a_chunk(5, sequence=1, user=b"second")) == []
    assert said(inbound.forward(LAST_TSN + 4, [(0, 0)])) == [b"second"]
    assert inbound.last_tsn == LAST_TSN + 5
    assert (inbound.held, inbound.held_bytes, inbound.gaps()) == (0, 0, [])
    assert said(inbound.add(a_chunk(6, sequence=2, user=b"third"))) == [b"third"]


def test_a_message_that_goes_on_behind_what_is_given_up_is_kept() -> None:
    inbound = reassembly()
    inbound.add(a_chunk(2, sequence=1, user=b"be", flags=FIRST))
    inbound.forward(LAST_TSN + 2, [(0, 0)])
    assert said(inbound.add(a_chunk(3, sequence=1, user=b"gun", flags=LAST))) == [b"begun"]


def test_the_rest_of_what_is_given_up_is_nothing() -> None:
    inbound = reassembly()
    inbound.add(a_chunk(5, sequence=0, flags=0))
    inbound.forward(LAST_TSN + 3, [(0, 0)])
    assert inbound.add(a_chunk(4, sequence=0, flags=0)) == []
    assert inbound.add(a_chunk(6, sequence=0, flags=LAST)) == []
    assert inbound.held == 0
    assert said(inbound.add(a_chunk(7, sequence=1, user=b"next"))) == [b"next"]


def test_giving_up_what_came_already_changes_nothing() -> None:
    inbound = reassembly()
    inbound.add(a_chunk(1))
    assert inbound.forward(LAST_TSN - 5, [(0, 7)]) == []
    assert said(inbound.add(a_chunk(2, sequence=1))) == [b"x"]


def order(name: str, count: int) -> Iterable[DataChunk]:
    """That many chunks in the order that costs aiortc the square of it."""
    match name:
        case "a message in fragments":
            return (a_chunk(i + 1, flags=FIRST * (i == 0) | LAST * (i == count - 1)) for i in range(count))
        case "one missing":
            return (a_chunk(i + 2, sequence=i + 1) for i in range(count))
        case _:
            return (a_chunk(count - i + 1, sequence=count - i) for i in range(count))


@pytest.mark.parametrize("name", ["a message in fragments", "one missing", "backwards"])
def test_a_chunk_costs_the_same_whatever_is_held(name: str) -> None:
    def cost_s(count: int) -> float:
        chunks = list(order(name, count))
        least = float("inf")
        for _ in range(5):
            inbound = reassembly()
            began = time.thread_time()
            for chunk in chunks:
                inbound.add(chunk)
            least = min(least, time.thread_time() - began)
        return least

    # Eight times as many: the square would be 64 times as dear.
    assert cost_s(2000) < 20 * cost_s(250) + 0.002
