"""Heartbeats: a loop that turns is told from one that hangs, by its supervisor and by whoever asks the page."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest

from runtime.scrape import Unavailable
from runtime.supervision import beats
from runtime.supervision.watchdog import MainBeat


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(beats.time, "monotonic", lambda: self.now)


async def turn(beat: beats.Beat) -> None:
    """Has its loop turn once."""
    turning = asyncio.create_task(beat.forever())
    await asyncio.sleep(0)
    turning.cancel()
    with suppress(asyncio.CancelledError):
        await turning


@pytest.mark.parametrize("kind", [MainBeat, lambda: beats.Beat(-1, 0)])
async def test_a_loop_is_alive_while_it_has_turned_within_some_seconds(
    kind: type[MainBeat], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    beat = kind()
    assert json.loads(beat.health({})) == {"alive": True}, "it has only begun"
    clock.now += 4
    beat.health({})
    clock.now += 2
    with pytest.raises(Unavailable, match="has not turned for 6 s"):
        beat.health({})
    await turn(beat)
    assert json.loads(beat.health({})) == {"alive": True}
