"""How a process follows the cluster's key file while it runs, and tells Prometheus which keys it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Never

from runtime.metrics import Gauges
from wire.keys import ClusterKeys, KeyFile

__all__ = ["LOOK_EVERY_S", "follow", "ufrag_keys"]

LOOK_EVERY_S = 1.0


async def follow(file: KeyFile, use: Callable[[ClusterKeys], None]) -> Never:
    """Looks at ``file`` once a second, and calls ``use`` with what it says whenever that has changed."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if file.refresh():
            use(file.keys)


def ufrag_keys(keys: Callable[[], ClusterKeys]) -> Gauges:
    """The metric that says which keys this process works with: ``firsthop keys rotate`` waits for it."""

    def held() -> dict[tuple[str, ...], float]:
        now = keys()
        return {(str(i), "sealing" if i == now.sealing else "accepted"): 1 for i in now.ufrag}

    return Gauges("firsthop_ufrag_key", "1 for each ufrag key that this process takes", ("id", "role"), held)
