"""The memory of refusals: who asks again is refused again for a moment, unless there may be room by then."""

from __future__ import annotations

from edge.placement.fullness import FRESH_S, Fullness


def test_who_was_refused_is_refused_again_for_a_moment() -> None:
    fullness = Fullness()
    assert fullness.get(("key", "parrot"), 100.0, 7) == ""
    fullness.put(("key", "parrot"), "no room", 100.0, 7)
    assert fullness.get(("key", "parrot"), 100.0 + FRESH_S / 2, 7) == "no room"
    assert fullness.get(("key", "parrot"), 100.0 + FRESH_S, 7) == ""


def test_nobody_is_refused_for_another_or_for_another_model() -> None:
    fullness = Fullness()
    fullness.put(("key", "parrot"), "no room", 100.0, 7)
    assert fullness.get(("other", "parrot"), 100.0, 7) == ""
    assert fullness.get(("key", "echo"), 100.0, 7) == ""


def test_a_call_that_ended_and_a_transceiver_with_room_end_it() -> None:
    fullness = Fullness()
    fullness.put(("key", "parrot"), "no room", 100.0, 7)
    assert fullness.get(("key", "parrot"), 100.0, 8) == ""
    fullness.clear()
    assert fullness.get(("key", "parrot"), 100.0, 7) == ""


def test_what_was_refused_long_ago_is_forgotten_for_what_was_refused_since() -> None:
    fullness = Fullness()
    for n in range(5000):
        fullness.put(n, "no room", 100.0, 0)
    assert fullness.get(0, 100.0, 0) == ""
    assert fullness.get(4999, 100.0, 0) == "no room"
