"""The rounds of a worker: how long datagrams wait for one another."""

from __future__ import annotations

import pytest

from edge.relay.rounds import LONGEST_S, Rounds, Spares


def under(rate_hz: float, spare_s: float = 0.0, seconds: float = 0.1) -> tuple[Rounds, float]:
    """Rounds of a worker that had such a load for a while, and the time."""
    rounds, now, every_s = Rounds(0.0), 0.0, 0.001
    rounds.spare_s = spare_s
    while now < seconds:
        now += every_s
        rounds.begin(round(rate_hz * every_s), now)
    return rounds, now


def test_one_call_waits_for_nothing() -> None:
    rounds, now = Rounds(0.0), 0.0
    rounds.spare_s = 0.005
    for _ in range(100):  # a datagram every 20 ms, and its answer half a millisecond later
        for step in (0.0195, 0.0005):
            now += step
            assert rounds.wait(now) <= 0
            rounds.begin(1, now)


@pytest.mark.parametrize(
    ("rate_hz", "least"), [(1000, 0.0016), (24_000, 0.0016), (26_000, 0.0006), (99_000, 0.0006), (200_000, 0.001)]
)
def test_under_load_rounds_keep_their_distance(rate_hz: float, least: float) -> None:
    rounds, now = under(rate_hz)
    assert rounds.wait(now + 0.0001) == pytest.approx(least - 0.0001)
    assert rounds.wait(now + 0.01) <= 0


def test_media_that_can_spare_the_time_waits_longer() -> None:
    rounds, now = under(2000, spare_s=0.004)
    assert rounds.wait(now) == pytest.approx(0.004)
    assert rounds.interruptible
    rounds, now = under(2000)
    assert not rounds.interruptible
    rounds, now = under(50_000, spare_s=0.004)  # what it would save is saved by the load already
    assert rounds.wait(now) == pytest.approx(0.0006)
    assert not rounds.interruptible


def test_after_a_pause_the_first_datagrams_wait_for_nothing() -> None:
    rounds, now = under(2000)
    now += 1.0
    rounds.begin(2, now)
    assert rounds.wait(now + 0.0001) <= 0


def test_a_burst_soon_waits() -> None:
    rounds, now = under(0)
    assert rounds.wait(now) <= 0
    for _ in range(100):
        now += 0.0003
        rounds.begin(2, now)
    assert rounds.wait(now) > 0


def test_all_media_waits_as_long_as_that_which_can_the_least() -> None:
    spares = Spares()
    assert spares.least(0) == 0
    spares.put(b"a", 0.004)
    spares.put(b"b", 0.003)
    assert spares.least(2) == 0.003
    assert spares.least(3) == 0  # one of which nothing is known
    spares.put(b"b", 0.0)
    assert spares.least(2) == 0
    spares.forget(b"b")
    spares.forget(b"never was")
    assert spares.least(1) == 0.004


@pytest.mark.parametrize(("said", "taken"), [(-1.0, 0.0), (3600.0, LONGEST_S), (float("nan"), 0.0)])
def test_what_a_transceiver_says_has_bounds(said: float, taken: float) -> None:
    spares = Spares()
    spares.put(b"a", said)
    assert spares.least(1) == taken
