"""A worker's end of the link to one transceiver: what it passes on, and what waits where the link is full.

A datagram is counted when its fate is known: its outcome when ZeroMQ took its batch, ``link_down`` where no transceiver
is there, ``link_full`` when one is there but so far behind that the batch got too old (``wire.outbox``). So a
transceiver that stands still costs its own callers their media, and nobody else a microsecond.
"""

from __future__ import annotations

import time
from typing import Any

import zmq

from firsthop.metrics import Tally
from wire import link
from wire.keys import ClusterKeys
from wire.outbox import Outbox

__all__ = ["Uplink"]


# A data message, and how many of its datagrams are to be counted as what when it is sent. Tuples, because there is one
# a batch: a dataclass costs half a microsecond.
_Batch = tuple[bytes, dict[str, int]]


class Uplink:
    """The link to the transceiver ``number`` at ``endpoint``; outcomes are counted in ``tally``."""

    def __init__(
        self, context: zmq.Context[Any], number: int, endpoint: str, identity: bytes, keys: ClusterKeys, tally: Tally
    ) -> None:
        self.number = number
        self.dealer, self._there = link.media_dealer(context, endpoint, identity, keys)
        self._tally = tally
        self._outbox = Outbox[_Batch](lambda batch: self._lose(batch, "link_full"))

    @property
    def waits(self) -> bool:
        """Whether anything waits for room."""
        return len(self._outbox) > 0

    def send(self, message: bytes, outcomes: dict[str, int]) -> None:
        """Passes a data message on, whose datagrams count as ``outcomes`` says (outcome to number)."""
        batch = (message, outcomes)
        if not self._outbox and self._give(batch) is None:
            return
        self._outbox.put(batch, len(message), time.monotonic())
        self.flush()

    def flush(self) -> None:
        """Passes on what waited, as far as there is room for it."""
        self._outbox.flush(self._give, time.monotonic())
        if self._outbox and not self._there:
            for batch in self._outbox.clear():
                self._lose(batch, "link_down")

    def look(self) -> None:
        """To be called about once a second: takes note of who came and went."""
        bool(self._there)

    def _give(self, batch: _Batch) -> _Batch | None:
        message, outcomes = batch
        try:
            self.dealer.send(message, zmq.NOBLOCK)
        except zmq.Again:
            return batch
        for outcome, count in outcomes.items():
            self._tally[outcome] += count
        return None

    def _lose(self, batch: _Batch, outcome: str) -> None:
        self._tally[outcome] += sum(batch[1].values())
