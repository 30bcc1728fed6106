"""The speed of a core as benchmarks watch it."""

from __future__ import annotations

import os
import time

import pytest

from bench.harness.speed import Speed, slowest


def test_the_slowest_fifth_of_a_second_is_found_and_a_single_slow_piece_is_not_taken_for_one() -> None:
    took = [(100 + i / 100, 1e-4) for i in range(1000)]
    assert slowest(took, 100, 110) == pytest.approx(1)
    took[500] = (105.0, 3e-4)
    assert slowest(took, 100, 110) == pytest.approx(1.1)
    took[500:520] = [(105 + i / 100, 2e-4) for i in range(20)]
    assert slowest(took, 100, 110) == pytest.approx(2)
    assert slowest(took, 106, 110) == pytest.approx(1), "it was before that time"


def test_nothing_known_is_no_trouble() -> None:
    assert slowest([], 0, 10) == 1.0
    assert slowest([(1.0, 1e-4)], 5, 10) == 1.0


def test_a_core_is_watched_while_it_is_asked_for() -> None:
    began = time.time()
    with Speed(min(os.sched_getaffinity(0))) as speed:
        time.sleep(0.5)
    assert speed.between(began, time.time()) >= 1
    assert speed.between(0, 1) == 1.0
