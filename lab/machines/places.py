"""The places of the machines' images and wheels: the source, and the cache beside it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["SOURCE", "cached"]

SOURCE = Path(__file__).parents[2]


def cached(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """The folder that ``make`` fills, made again only when ``recipe`` has changed. One made by an older recipe goes.

    It is in ``.machines`` of the source, or in the folder that LAB_MACHINES names.
    """
    cache = Path(os.environ.get("LAB_MACHINES", SOURCE / ".machines"))
    cache.mkdir(parents=True, exist_ok=True)
    found = cache / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may want it at once
        if not found.exists():
            for old in cache.glob(f"{name}-*"):
                shutil.rmtree(old)
            half = cache / f"{name}-half"
            make(half)
            half.rename(found)
    return found
