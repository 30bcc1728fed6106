"""The edge that tests of signaling share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from edge_run import RealEdge, a_real_edge


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[RealEdge]:
    async with a_real_edge(tmp_path, 1) as edge:
        edge.start(1)
        await edge.ready(1)
        yield edge
