"""How long datagrams wait for one another at a worker."""

from __future__ import annotations

import pytest

from edge.rounds import Rounds


def after(every_s: float, times: int = 200) -> tuple[Rounds, float]:
    """Rounds that began regularly, and when the last did."""
    rounds, now = Rounds(0.0), 0.0
    for _ in range(times):
        now += every_s
        rounds.begin(now)
    return rounds, now


def test_one_call_waits_for_nothing() -> None:
    rounds, now = Rounds(0.0), 0.0
    for _ in range(100):  # a datagram every 20 ms, and its answer half a millisecond later
        for step in (0.0195, 0.0005):
            now += step
            assert rounds.wait(1, now) <= 0
            rounds.begin(now)


@pytest.mark.parametrize(("handled", "least"), [(1, 0.0012), (5, 0.0012), (6, 0.0006), (63, 0.0006), (64, 0.001)])
def test_under_load_rounds_keep_their_distance(handled: int, least: float) -> None:
    rounds, now = after(0.001)
    assert rounds.wait(handled, now + 0.0001) == pytest.approx(least - 0.0001)
    assert rounds.wait(handled, now + 0.01) <= 0


def test_after_a_pause_the_first_datagrams_wait_for_nothing() -> None:
    rounds, now = after(0.001)
    for _ in range(4):
        now += 1.0
        rounds.begin(now)
    assert rounds.wait(1, now + 0.0001) <= 0


def test_a_burst_soon_waits() -> None:
    rounds, now = after(1.0)
    waits = []
    for _ in range(60):
        now += 0.0003
        waits.append(rounds.wait(2, now) > 0)
        rounds.begin(now)
    assert not waits[0]
    assert waits[-1]
