"""SSRCs as hints: whose they are, and for how long."""

from __future__ import annotations

from edge.relay.hints import Hints

A, B, C = b"a" * 18, b"b" * 18, b"c" * 18


def test_a_hint_lasts_as_long_as_the_flow_that_has_it() -> None:
    hints = Hints(None, 0)
    hints.put(A, 1, [7, 7, 8])
    assert [hints.transceiver(ssrc) for ssrc in (7, 8, 9)] == [1, 1, None]
    hints.put(A, 1, [8])
    assert [hints.transceiver(ssrc) for ssrc in (7, 8)] == [None, 1]
    hints.forget(A)
    hints.forget(A)
    assert hints.transceiver(8) is None


def test_a_caller_that_moved_and_came_back_leaves_nothing() -> None:
    hints = Hints(None, 0)
    hints.put(A, 1, [7])
    hints.put(B, 1, [7])
    hints.forget(B)
    assert hints.transceiver(7) is None
    hints.forget(A)
    hints.put(C, 2, [7])
    assert hints.transceiver(7) == 2


def test_another_transceiver_does_not_take_it() -> None:
    hints = Hints(None, 0)
    hints.put(A, 1, [7])
    hints.put(B, 2, [7, 8])
    assert [hints.transceiver(ssrc) for ssrc in (7, 8)] == [1, 2]
    hints.forget(B)
    assert hints.transceiver(7) == 1
