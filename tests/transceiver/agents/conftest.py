"""The engine that tests of the agent ``local`` talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from doubles.engine import Engine

from transceiver.agents import local


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    made = Engine()
    monkeypatch.setattr(local, "connection", lambda about, under: made)
    yield made
    for gate in made.gates.values():
        gate.set()
