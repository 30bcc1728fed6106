"""The cluster's key file as a process follows it, and the metric that says which keys the process has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from runtime.families import shared
from runtime.followed import Followed
from runtime.logs import Log
from runtime.metrics import Gauges
from wire import keys
from wire.keys import ClusterKeys

__all__ = ["KeyFile", "ufrag_keys"]


class KeyFile(Followed[ClusterKeys]):
    """The key file at ``path``; it must be good (KeyFileError) where there is no ``start``.

    Its link secret stays what it was at the beginning: links that stand were made with it.
    """

    def __init__(self, path: Path, log: Log, start: ClusterKeys | None = None) -> None:
        self._link = start.link if start is not None else None
        super().__init__("key file", self._with_first_link, path, log=log, start=start, secret=True)

    @property
    def keys(self) -> ClusterKeys:
        """The keys that the file last had."""
        return self.value

    def refresh(self) -> bool:
        """See Followed."""
        if not super().refresh():
            return False
        self._log.info("ufrag keys changed", sealing=self.keys.sealing, accepted=sorted(self.keys.ufrag))
        return True

    def _with_first_link(self, path: Path) -> ClusterKeys:
        now = keys.load(path)
        if self._link is None:
            self._link = now.link
        elif now.link != self._link:
            self._log.warning("the link secret stays as it was: reload or restart to change link", file=str(path))
            now = replace(now, link=self._link)
        return now


def ufrag_keys(keys: Callable[[], ClusterKeys]) -> Gauges:
    """The metric that says which keys this process works with: ``firsthop keys rotate`` waits for it."""

    def held() -> dict[tuple[str, ...], float]:
        now = keys()
        return {(str(i), "sealing" if i == now.sealing else "accepted"): 1 for i in now.ufrag}

    return Gauges(shared.UFRAG_KEY, held)
