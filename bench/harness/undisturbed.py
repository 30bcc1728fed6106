"""The runs of a benchmark that nobody else disturbed, as far as there is patience to wait for such."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from bench.harness.cpu import others

__all__ = ["DISTURBED", "Undisturbed"]

# So much of a core for other processes spoils a run.
DISTURBED = 0.05
T = TypeVar("T")


class Undisturbed:
    """Runs that are made again where others disturbed them, at most ``tries`` times; each waits until others are done.
    ``patience_s`` is what all of that may take; when it is used up, each run is made once."""

    def __init__(self, patience_s: float, tries: int) -> None:
        self._patience_s = patience_s
        self._tries = tries

    def __call__(self, run: Callable[[], T], disturbed: Callable[[T], float]) -> T:
        """The least disturbed of a few runs; the first that nobody disturbed ends the trying. ``disturbed`` is the
        share of a core that others took in one."""
        runs: list[T] = []
        for _ in range(self._tries):
            began = time.monotonic()
            while self._patience_s > time.monotonic() - began and others() > DISTURBED:
                pass
            self._patience_s -= time.monotonic() - began
            began = time.monotonic()
            runs.append(run())
            if disturbed(runs[-1]) <= DISTURBED or self._patience_s <= 0:
                break
            self._patience_s -= time.monotonic() - began
        return min(runs, key=disturbed)
