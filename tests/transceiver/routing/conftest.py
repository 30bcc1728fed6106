"""Two transceivers for tests of calls that go from one to the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from routed import Source

from wire.messages import Neighbour


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    source = Source()
    yield source
    source.leaving.close()


@pytest.fixture
def there(tmp_path: Path) -> Neighbour:
    """Where the other one is."""
    return Neighbour(id=2, endpoint=f"ipc://{tmp_path}/2")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a hand-over wait for as long as a busy machine needs."""
    for patience in ("_CONNECT_S", "_RESERVE_S", "_TAKE_S"):
        monkeypatch.setattr(f"transceiver.handover.leaving.{patience}", 30.0)
