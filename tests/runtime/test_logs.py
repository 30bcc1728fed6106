"""Logs are limited by event, so that nobody fills a disk by what makes them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from contextlib import suppress

import pytest
import structlog

from runtime.logs import Limit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def passed(limit: Limit, event: str, count: int = 1) -> list[int]:
    """How many each that passes says were suppressed."""
    found = []
    for _ in range(count):
        with suppress(structlog.DropEvent):
            found.append(limit(None, "error", {"event": event}).get("suppressed", 0))
    return found


def test_lines_of_one_event_are_limited_and_the_next_says_how_many_are_missing() -> None:
    clock = Clock()
    limit = Limit(burst=5, rate=2.0, clock=clock)
    assert passed(limit, "flood", 1000) == [0] * 5
    assert passed(limit, "another", 3) == [0] * 3
    clock.now = 1.0
    assert passed(limit, "flood", 10) == [995, 0]
    clock.now = 1000.0
    assert passed(limit, "flood", 10) == [8, 0, 0, 0, 0]


def test_made_up_names_do_not_grow_it() -> None:
    limit = Limit(burst=5, rate=0.0, clock=Clock())
    told = [len(passed(limit, str(i))) for i in range(5000)]
    assert sum(told) < 1100
    assert passed(limit, "0") == [0]  # those that were there first have their own


def test_a_line_of_a_library_is_limited_too() -> None:
    clock = Clock()
    limit = Limit(burst=2, rate=1.0, clock=clock)

    def say(message: str, *args: object) -> logging.LogRecord | None:
        record = logging.LogRecord("library", logging.ERROR, "x.py", 1, message, args, None)
        return record if limit.filter(record) else None

    told = [say("from %s", i) for i in range(10)]
    assert [record.getMessage() for record in told if record] == ["from 0", "from 1"]
    clock.now = 1.0
    record = say("from %s", 10)
    assert record is not None
    assert record.getMessage() == "from 10 (8 like it were suppressed)"


@pytest.mark.parametrize("speaker", ["logs.get().error('flood', n=i)", "logging.getLogger('x').error('flood %s', i)"])
def test_a_process_that_floods_writes_little(speaker: str) -> None:
    code = f"""
import logging
from runtime import logs
logs.configure("info", "json", process="t")
for i in range(20000):
    {speaker}
logs.get().info("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    lines = done.stderr.splitlines()
    assert json.loads(lines[-1])["event"] == "done"
    assert 200 <= len(lines) < 2000
