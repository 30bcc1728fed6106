"""The moments at which a process that serves sessions looks through everything for garbage."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from runtime.collector import Collector


class Circle:
    """What reference counts do not free."""

    def __init__(self) -> None:
        self.itself = self


class Process:
    def __init__(self) -> None:
        self.sessions, self.rss_bytes = 0, 1 << 30
        self.collector = Collector(lambda: self.sessions, lambda: self.rss_bytes)
        self.now = 0.0

    def seconds(self, count: int) -> int:
        """Returns how often everything was looked through meanwhile."""
        before = self.collector.whole
        for _ in range(count):
            self.now += 1.0
            self.collector.step(self.now)
        return self.collector.whole - before


@pytest.fixture
def process() -> Iterator[Process]:
    yield Process()
    gc.unfreeze()


def test_nobody_waits_for_a_collection_of_everything(process: Process) -> None:
    process.sessions = 1
    assert process.seconds(100) == 0


def test_everything_is_looked_through_once_after_the_last_session(process: Process) -> None:
    process.sessions = 1
    process.seconds(1)
    process.sessions = 0
    assert process.seconds(100) == 1
    process.sessions = 1
    process.seconds(1)
    process.sessions = 0
    assert process.seconds(100) == 1


def test_everything_is_looked_through_when_memory_has_grown(process: Process) -> None:
    process.sessions = 1
    process.rss_bytes += 300 << 20
    assert process.seconds(10) == 1
    process.rss_bytes += 200 << 20
    assert process.seconds(10) == 0
    process.rss_bytes += 100 << 20
    assert process.seconds(10) == 1


def test_what_is_new_is_collected_each_second(process: Process) -> None:
    process.sessions = 1
    process.seconds(1)
    known = weakref.ref(Circle())
    process.seconds(1)
    assert known() is None


def test_an_old_circle_is_found_with_everything(process: Process) -> None:
    process.sessions = 1
    circle = Circle()
    process.seconds(1)
    known = weakref.ref(circle)
    del circle
    process.seconds(1)
    assert known() is not None
    process.rss_bytes += 300 << 20
    process.seconds(1)
    assert known() is None
