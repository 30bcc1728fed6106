"""The steps of a key rotation, as arithmetic on a key file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wire.keys import KeyFileError, new_file_text, parse
from wire.rotation import KeyRing
from wire.ufrag import MAX_KEY_ID

NOW = datetime(2026, 5, 4, 12, 0, 0, 500, tzinfo=UTC)
FILE = Path("cluster.toml")
LINK = "ab" * 32
OLD = f'link = "{LINK}"\n[[ufrag]]\nid = 3\nkey = "{"cd" * 16}"\n'  # as they were before made


def entry(key_id: int, made: str = "") -> str:
    return f'[[ufrag]]\nid = {key_id}\nkey = "{"ef" * 16}"\n' + (f"made = {made}\n" if made else "")


def ring(text: str) -> KeyRing:
    return KeyRing.parse(text, FILE)


def ids(ring: KeyRing) -> list[int]:
    return [ring.sealing, *ring.accepted]


def key(i: int) -> bytes:
    return bytes([i]) * 16


def test_a_rotation_has_two_steps_and_the_file_says_which_is_due() -> None:
    begun = ring(OLD)
    assert begun.prepared is None
    prepared = ring(begun.prepare(NOW, key(1)).text())
    assert (ids(prepared), prepared.prepared) == ([3, 4], 4)
    promoted = ring(prepared.promote().text())
    assert (ids(promoted), promoted.prepared) == ([4, 3], None)
    again = ring(promoted.prepare(NOW + timedelta(days=1), key(2)).text())
    assert (ids(again), again.prepared) == ([4, 5], 5)
    assert parse(again.text(), FILE).ufrag == {4: key(1), 5: key(2)}
    assert parse(again.text(), FILE).link == bytes.fromhex(LINK)


def test_what_is_shared_has_every_key_and_another_secret() -> None:
    ours = ring(OLD).prepare(NOW, key(1))
    shared = parse(ours.shared_text(), FILE)
    assert shared == parse(ours.text(), FILE).shared()
    assert ids(ring(ours.shared_text())) == ids(ours)
    assert LINK not in ours.shared_text()


def test_a_hundred_rotations_never_have_more_than_two_keys_nor_an_id_twice_in_a_row() -> None:
    now, rotated = NOW, ring(new_file_text())
    for i in range(100):
        dropped = set(ids(rotated))
        rotated = rotated.prepare(now, key(i))
        assert len(ids(rotated)) == 2
        assert rotated.accepted[0] not in dropped
        assert 0 <= rotated.accepted[0] <= MAX_KEY_ID
        rotated = rotated.promote()
        assert rotated.keys[0].key == key(i)


@pytest.mark.parametrize("set_back", [timedelta(0), timedelta(days=400)], ids=["same second", "clock set back"])
def test_a_prepared_key_is_the_newest_whatever_the_clock_says(set_back: timedelta) -> None:
    rotated = ring(OLD).prepare(NOW, key(1)).promote()
    prepared = ring(rotated.prepare(NOW - set_back, key(2)).text())
    assert prepared.prepared == prepared.accepted[0]
    assert ids(prepared.promote()) == [5, 4]


def test_two_keys_of_an_old_file_are_no_rotation_under_way() -> None:
    assert ring(OLD + entry(1)).prepared is None
    with pytest.raises(ValueError, match="no key is prepared"):
        ring(OLD + entry(1)).promote()


def test_more_than_two_keys_become_two() -> None:
    steady = ring(OLD + entry(1) + entry(2))
    assert ids(steady.prepare(NOW, key(1))) == [3, 4]
    prepared = ring(OLD + entry(1) + entry(2, "2026-01-01T00:00:00Z"))
    assert (prepared.prepared, ids(prepared.promote())) == (2, [2, 3])


def test_a_file_with_every_id_can_be_rotated() -> None:
    full = ring(OLD + "".join(entry(i) for i in range(8) if i != 3))
    assert ids(full.prepare(NOW, key(1))) == [3, 4]


def test_a_time_in_another_zone_is_the_same_time() -> None:
    text = OLD + entry(1, "2026-01-01T02:00:00+02:00")
    assert "made = 2026-01-01T00:00:00Z" in ring(text).text()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("more = 1\n" + OLD, "more is not known"),
        (OLD + 'note = "why"\n', "ufrag.note is not known"),
        (OLD + "[more]\n", "more is not known"),
        (OLD + entry(1, "2026-01-01"), "ufrag.made is a time"),
        (OLD + entry(1, "2026-01-01T00:00:00"), "ufrag.made is a time"),
        (OLD + entry(1, '"yesterday"'), "ufrag.made is a time"),
        (OLD + entry(3), "the same id"),
        ("link = ", "not TOML"),
    ],
)
def test_what_would_be_lost_or_misread_is_refused_in_one_line(text: str, named: str) -> None:
    with pytest.raises(KeyFileError, match=named) as refused:
        ring(text)
    assert "\n" not in str(refused.value)


def test_keys_do_not_show_when_a_ring_is_printed() -> None:
    assert "cd" * 16 not in repr(ring(OLD))
    assert repr(bytes.fromhex("cd" * 16)) not in repr(ring(OLD))
