"""The page ``/explain`` beside signaling's metrics: what would become of a call now, and why (``firsthop explain``)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from edge.placement.explain import Explanation
from edge.signaling.placing import Placing

__all__ = ["EXPLAIN_PATH", "explanation"]

EXPLAIN_PATH = "/explain"
_PATIENCE_S = 0.9


def explanation(placing: Placing, loop: asyncio.AbstractEventLoop, query: Mapping[str, str]) -> bytes:
    """The explanation as JSON, from another thread than ``loop``'s, which alone may look at what is placed. Raises
    TimeoutError where that has too much to do."""

    async def look() -> Explanation:
        return placing.explain(query.get("model", ""), query.get("version", ""), query.get("region", ""))

    return msgspec.json.encode(asyncio.run_coroutine_threadsafe(look(), loop).result(_PATIENCE_S))
