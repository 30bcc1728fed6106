"""A transceiver that has more calls than it can serve in time: the newest leave, and are told why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from signaling_run import Signaling
from waiting import eventually

from transceiver.capacity import Window
from transceiver.counters import ENDS


@pytest.fixture
async def signaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Signaling]:
    monkeypatch.setattr("transceiver.server._SWEEP_S", 0.01)
    ends = Signaling(tmp_path, max_sessions=10, capacity="measured")
    sweeping = asyncio.create_task(ends.transceiver.sweep_forever())
    yield ends
    sweeping.cancel()
    with suppress(asyncio.CancelledError):
        await sweeping
    await ends.close()


async def test_the_newest_leaves_with_an_error_and_the_others_stay(
    signaling: Signaling, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave: list[int] = []
    # What this machine is busy with says nothing here.
    monkeypatch.setattr(signaling.transceiver.load, "measured", lambda window: leave.pop() if leave else 0)
    sessions = [await signaling.opened() for _ in range(3)]
    before = ENDS["overloaded"]
    leave.append(1)
    error = await signaling.event("error")
    assert error["error"]["code"] == "overloaded"
    closed = await signaling.hears("session.closed")
    assert (closed["ufrag"], closed["reason"]) == (sessions[-1], "overloaded")
    assert signaling.transceiver.sessions == 2
    assert ENDS["overloaded"] == before + 1


async def test_a_second_of_the_process_is_measured(signaling: Signaling, monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[Window] = []

    def measured(window: Window) -> int:
        windows.append(window)
        return 0

    await signaling.opened()
    monkeypatch.setattr(signaling.transceiver.load, "measured", measured)
    kind = ("parrot", "events")
    await eventually(lambda: sum(window.made.get(kind, 0) for window in windows) >= 10)
    made = [window for window in windows if window.made.get(kind)]
    assert all(window.seconds > 0 and 0 <= window.used <= 1 for window in windows)
    assert all(window.made_s[kind] > 0 and window.due >= window.made[kind] for window in made)
    assert sum(window.ran for window in windows) > 0
