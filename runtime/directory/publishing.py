"""The publishing of an entry: its owner repeats it each second for as long as it lives.

Owners do it with jitter, so that those which began together do not stay together.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Never

from runtime.directory.store import Entry, Store, StoreError, name_of
from runtime.logs import Log
from wire.report import EdgeReport

__all__ = ["publish"]

_EVERY_S = 1.0
_JITTER = 0.1
_GOODBYE_S = 0.5


async def publish(store: Store, make: Callable[[], Entry], log: Log, every_s: float = _EVERY_S) -> Never:
    """Puts ``make()`` into the store until it is cancelled, and takes it out then. A store that is away, and another
    process of the same name, is one line in the log, and one more when that is over."""
    trouble = ""
    entry: Entry | None = None
    try:
        while True:
            before = trouble
            try:
                entry = make()
                trouble = _in_the_way(entry, await store.put(entry))
            except Exception as e:  # a fault of ours among them, which costs an entry and not the process
                trouble = str(e) or repr(e)
            if trouble and trouble != before:
                log.warning("the directory does not have this process: new calls may not find it", why=trouble)
            elif before and not trouble:
                log.info("the directory has this process again")
            await asyncio.sleep(every_s * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311
    finally:
        if entry is not None:
            with suppress(StoreError, TimeoutError, ValueError):
                async with asyncio.timeout(_GOODBYE_S):
                    await store.remove(entry)


def _in_the_way(entry: Entry, holder: Entry | None) -> str:
    """What to do about another process that has the entry's name."""
    if holder is None:
        return ""
    kind, name = name_of(entry)
    key = "edge.name" if kind == "edge" else "transceiver.id"
    where = holder.media if isinstance(holder, EdgeReport) else holder.endpoint
    return f"{key} {name} is another process's, at {where}: give each a {key} of its own"
