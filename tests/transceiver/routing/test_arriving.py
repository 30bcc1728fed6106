"""Large parts of a call that come ahead of it: each is whole, with its text, before the call itself comes."""

from __future__ import annotations

import random

import pytest

from transceiver.handover.copying import Arriving
from transceiver.parts import Arrived
from wire.messages import MAX_PIECE_BYTES


def put(arriving: Arriving, number: int, data: bytes, size: int = MAX_PIECE_BYTES) -> None:
    for at in range(0, len(data), size):
        assert arriving.put(number, data[at : at + size])


def all_of(arriving: Arriving, count: int) -> Arrived:
    return arriving.joined([b""] * count, [(place, place) for place in range(count)])


PICTURE = "data:image/png;base64," + "ab" * MAX_PIECE_BYTES
SOUND = random.Random(5).randbytes(3 * MAX_PIECE_BYTES + 7)


def test_parts_come_whole_and_those_that_are_text_have_been_made_text() -> None:
    arriving = Arriving()
    for number, data in enumerate((PICTURE.encode(), SOUND, PICTURE.encode())):
        put(arriving, number, data)
    found = all_of(arriving, 3)
    assert found == [PICTURE.encode(), SOUND, PICTURE.encode()]
    assert found.texts == {0: PICTURE, 2: PICTURE}
    again = all_of(arriving, 3)
    assert all(again[place] is found[place] for place in range(3))
    assert all(again.texts[place] is found.texts[place] for place in (0, 2))


@pytest.mark.parametrize("size", [MAX_PIECE_BYTES, 50_000, MAX_PIECE_BYTES - 1])
def test_pieces_may_have_any_sizes(size: int) -> None:
    arriving, data = Arriving(), ("ä" * MAX_PIECE_BYTES).encode()
    put(arriving, 0, data, size)
    put(arriving, 1, SOUND[: 2 * MAX_PIECE_BYTES], size)
    found = all_of(arriving, 2)
    assert found == [data, SOUND[: 2 * MAX_PIECE_BYTES]]
    assert found.texts == {0: data.decode()}


def test_what_did_not_go_ahead_stays_and_what_is_missing_is_refused() -> None:
    arriving = Arriving()
    put(arriving, 4, SOUND)
    assert arriving.joined([b"here", b""], [(1, 4)]) == [b"here", SOUND]
    for went in ([(0, 5)], [(2, 4)]):
        with pytest.raises(ValueError, match="without its part"):
            arriving.joined([b"here", b""], went)
