"""A call that is elsewhere, or about to be, as this transceiver sees it: its datagrams wait, and then are passed on.

From the moment at which the call's state has left until the other transceiver has it, what the client sends is kept. It
goes on in order: to the other transceiver, or to the call itself where that stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rtc.ice.lite import Path
from transceiver.counters import RX_DATAGRAMS

__all__ = ["Elsewhere"]

_MOST_KEPT = 1024  # datagrams of one call: a third of a second of more than any call sends

Take = Callable[[bytes, Path, bytes], None]


class Elsewhere:
    """The call of these ``ufrags`` and ``ssrcs``, on ``paths``, each with its worker. The first ufrag names it."""

    def __init__(self, ufrags: tuple[bytes, ...], ssrcs: tuple[int, ...], paths: dict[Path, bytes]) -> None:
        self.ufrags, self.ssrcs, self.paths = ufrags, ssrcs, paths
        self.to: int | None = None  # the transceiver that has the call; None while that is not decided
        self._kept: deque[tuple[bytes, Path, bytes]] = deque()
        self._take: Take | None = None

    @property
    def keys(self) -> list[bytes | int | Path]:
        """Everything that names it."""
        return [*self.ufrags, *self.ssrcs, *self.paths]

    def take(self, worker: bytes, path: Path, datagram: bytes) -> None:
        """Takes a client's datagram."""
        if self._take is not None:
            self._take(worker, path, datagram)
        elif len(self._kept) < _MOST_KEPT:
            self._kept.append((worker, path, datagram))
        else:
            RX_DATAGRAMS["overflow"] += 1

    def opens(self, take: Take) -> None:
        """Gives ``take`` what was kept, and all that comes from now on."""
        self._take = take
        while self._kept:
            take(*self._kept.popleft())
