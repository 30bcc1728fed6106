"""The agents and the clock of tests of hand-offs."""

from __future__ import annotations

import threading

import pytest
from handing_off import AGENTS, Slow

from transceiver import session


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks are made up for, however long the machine does something else."""
    monkeypatch.setattr(session, "_MOST_MADE_UP", 10_000)


@pytest.fixture(autouse=True)
def anew() -> None:
    """Nobody has been made, and who is slow to warm waits."""
    Slow.let = threading.Event()
    for kind in AGENTS.values():
        if "last" in vars(kind):
            delattr(kind, "last")
