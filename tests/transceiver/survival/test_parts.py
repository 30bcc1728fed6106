"""The parts of a state: sound in a queue, and what stands in a state for what is large."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transceiver.parts import LEAST_BYTES, Arrived, Parts, Sound, SoundState, data_of, text_of

_MOST = 1 << 20


def copied(sound: Sound, most_bytes: int = _MOST) -> Sound:
    parts = Parts()
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(sound.export(parts)), type=SoundState)
    return Sound.taken_up(state, parts.all, most_bytes)


@given(st.lists(st.tuples(st.sampled_from(("put", "take", "copy", "last")), st.integers(0, 90_000)), max_size=12))
def test_sound_is_a_queue_of_bytes(steps: list[tuple[str, int]]) -> None:
    sound, expected, at = Sound(), b"", 0
    for what, size in steps:
        if what == "put":
            pcm = bytes((at + i) % 251 for i in range(size))
            at += size
            sound.put(pcm)
            expected += pcm
        elif what == "take":
            assert sound.take(size) == expected[:size]
            expected = expected[size:]
        elif what == "last":
            assert sound.last(size) == (expected[-size:] if size else b"")
        else:
            sound = copied(sound)
        assert len(sound) == len(expected)
        assert bool(sound) == bool(expected)
    assert sound.take_all() == expected
    assert len(sound) == 0


def test_parts_of_sound_do_not_change_while_more_comes() -> None:
    sound = Sound()
    sound.put(bytes(100_000))
    before, after = Parts(), Parts()
    sound.export(before)
    sound.put(bytes(100_000))
    sound.take(960)
    sound.export(after)
    assert len(before.all) > 1
    assert all(old is new for old, new in zip(before.all, after.all, strict=False))
    assert len(after.all) > len(before.all)


def test_sound_of_another_is_bounded() -> None:
    sound = Sound()
    sound.put(bytes(range(250)) * 1000)
    assert copied(sound, 100_001).take_all() == (bytes(range(250)) * 1000)[:100_001]


@pytest.mark.parametrize(
    "state",
    [SoundState([7], 0, b""), SoundState([], 1, b"ab"), SoundState([b"abc"], 4, b""), SoundState([b""], 0, b"")],
)
def test_sound_that_is_none_is_refused(state: SoundState) -> None:
    with pytest.raises(ValueError, match=r"sound|part"):
        Sound.taken_up(state, [], _MOST)


def test_what_is_large_has_a_place_and_text_is_made_once() -> None:
    small, large, text = b"x", b"y" * LEAST_BYTES, "z" * LEAST_BYTES
    first = Parts()
    stands = first.data(small), first.data(large), first.text(text), first.text("w")
    assert stands == (small, 0, 1, "w")
    assert [data_of(each, first.all) for each in stands[:2]] == [small, large]  # type: ignore[arg-type]
    assert [text_of(each, first.all) for each in stands[2:]] == [text, "w"]  # type: ignore[arg-type]
    second = Parts(first)
    second.text(text)
    assert second.all[0] is first.all[1]
    for place in (-1, 2):
        with pytest.raises(ValueError, match="without its part"):
            data_of(place, first.all)


def test_text_of_a_state_that_is_taken_up_is_made_once_and_is_the_same_part_in_the_next_state() -> None:
    text, pcm = "z" * LEAST_BYTES, b"y" * LEAST_BYTES
    arrived = Arrived([text.encode(), pcm])
    made = text_of(0, arrived)
    assert made == text
    assert text_of(0, arrived) is made
    following = Parts(Parts.of(arrived))
    assert (following.text(made), following.data(data_of(1, arrived))) == (0, 1)
    assert all(after is before for after, before in zip(following.all, arrived, strict=True))
    for place in (-1, 2):
        with pytest.raises(ValueError, match="without its part"):
            text_of(place, arrived)
