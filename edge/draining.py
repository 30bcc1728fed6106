"""The end of an edge that takes no more calls, and waits until those that it has are over.

The media of a call goes where its client sends it, so an edge cannot move one: it lasts until it ends, or until the
edge's patience does. A file says that the edge drains (``mark``): signaling follows it, so one that is started again
meanwhile knows as well.
"""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from pathlib import Path
from typing import Never

from edge.peers import Peers
from runtime import ports
from runtime.address import Address
from runtime.config import Edge
from runtime.logs import Log

__all__ = ["empty", "follow_mark", "mark", "others_found"]

_LOOK_EVERY_S = 0.25
_COUNT_EVERY_S = 1.0
_TELL_EVERY_S = 10.0
_PATIENCE_S = 2.0
_WELL = re.compile(r"^firsthop_signaling_edge_well\{.*\} 1(?:\.0)?$", re.MULTILINE)
_COUNTED = re.compile(r"^firsthop_(?:worker_flows|signaling_websockets) (\S+)$", re.MULTILINE)
# No proxy: what is asked is this host.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def mark(edge: Edge) -> Path:
    """The file that is there while the edge drains."""
    return edge.run / f"{edge.name}.draining"


async def follow_mark(edge: Edge, peers: Peers) -> Never:
    """Keeps ``peers.draining`` as the file says."""
    path = mark(edge)
    while True:
        peers.draining = path.exists()
        await asyncio.sleep(_LOOK_EVERY_S)


async def others_found(edge: Edge) -> bool:
    """Whether signaling knows of another edge that takes calls, as one that it found in the directory's store."""
    return _WELL.search(await asyncio.to_thread(_metrics, ports.signaling(edge.metrics))) is not None


async def empty(edge: Edge, workers: int, log: Log) -> None:
    """Returns when no process of the edge has a call or a WebSocket any more, or when ``edge.drain_s`` is over."""
    places = [ports.signaling(edge.metrics), *(ports.worker(edge.metrics, i) for i in range(workers))]
    began = told = time.monotonic()
    log.info("draining", at_most_s=edge.drain_s)
    while time.monotonic() - began < edge.drain_s:
        await asyncio.sleep(_COUNT_EVERY_S)
        counts = await asyncio.gather(*(asyncio.to_thread(_count, place) for place in places))
        if not any(counts):
            log.info("drained", s=round(time.monotonic() - began, 1))
            return
        if time.monotonic() - told >= _TELL_EVERY_S:
            told = time.monotonic()
            log.info("draining", left=sum(counts), at_most_s=round(edge.drain_s - (told - began)))
    log.warning("calls are cut off: the edge's patience is over", drain_s=edge.drain_s)


def _count(place: Address) -> int:
    """The flows or WebSockets that the process with metrics at ``place`` has; 1 where it does not say."""
    found = _COUNTED.search(_metrics(place))
    return int(float(found[1])) if found else 1


def _metrics(place: Address) -> str:
    """What the process with metrics at ``place`` says; nothing where it does not."""
    try:
        with _opener.open(f"http://{place}/metrics", timeout=_PATIENCE_S) as response:
            return str(response.read().decode())
    except (OSError, ValueError):
        return ""
