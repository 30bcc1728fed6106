"""A worker's end of the link to one transceiver: it passes batches on, and keeps a bounded queue for when the link is
full.

A datagram is counted when its fate is known: its outcome when ZeroMQ took its batch, ``link_down`` where no transceiver
is there, ``link_full`` when one is there but so far behind that the batch got too old (``wire.outbox``). So a
transceiver that stands still costs its own callers their media, and nobody else a microsecond.

Two times are taken of each batch: how old its oldest datagram was when ZeroMQ took it, since the kernel received it,
and how long the link took there and back (``wire.frames``). The kernel tells the first by CLOCK_REALTIME: when
that clock is set some ages are left out, nothing else.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import zmq

from runtime import logs
from runtime.histogram import Histogram
from runtime.metrics import Tally
from wire import link
from wire.control import encode
from wire.frames import Data
from wire.greeting import Greeting
from wire.keys import ClusterKeys
from wire.messages import Message
from wire.outbox import Outbox

__all__ = ["Counts", "Uplink"]


# A data message, how many of its datagrams are to be counted as what when it is sent, and when the kernel got the first
# of them. Tuples, because there is one a batch: a dataclass costs half a microsecond.
_Batch = tuple[bytes, dict[str, int], int]


@dataclass(frozen=True, slots=True)
class Counts:
    """The counters of a worker's links: datagrams by outcome; by transceiver, the age of batches and the link's round
    trips."""

    outcomes: Tally
    age: Histogram
    round_trip: Histogram


class Uplink:
    """The link to the transceiver ``number`` at ``endpoint``, spoken to in ``greeting.version`` of the wire.
    ``label`` is what metrics call it, if not by its number."""

    def __init__(
        self,
        context: zmq.Context[Any],
        number: int,
        endpoint: str,
        identity: bytes,
        keys: ClusterKeys,
        counts: Counts,
        label: str = "",
    ) -> None:
        self.number, self.endpoint, self.label = number, endpoint, label or str(number)
        self.dealer, self._there = link.media_dealer(context, endpoint, identity, keys)
        self.greeting = Greeting()
        self._arrivals, self._hellos = 0, 0
        self._complained = False
        self.up = False  # as last asked
        self._tally = counts.outcomes
        self._counts = counts
        self._age, self._round_trip = counts.age.of(self.label), counts.round_trip.of(self.label)
        self._outbox = Outbox[_Batch](lambda batch: self._lose(batch, "link_full"))

    @property
    def waits(self) -> bool:
        """Whether anything waits for room."""
        return len(self._outbox) > 0

    @property
    def there(self) -> bool:
        """Whether the other end is connected. Ask about once a second: what happened is kept until then."""
        self.up = bool(self._there)
        return self.up

    def send(self, message: bytes, outcomes: dict[str, int], came_ns: int) -> None:
        """Passes a data message on, whose datagrams count as ``outcomes`` says (outcome to number); ``came_ns`` is when
        the kernel got the first, by CLOCK_REALTIME."""
        batch = (message, outcomes, came_ns)
        if not self._outbox and self._give(batch) is None:
            return
        self._outbox.put(batch, len(message), time.monotonic())
        self.flush()

    def flush(self) -> None:
        """Passes on what waited, as far as there is room for it."""
        self._outbox.flush(self._give, time.monotonic())
        if self._outbox and not self._there:
            self.greeting.lost()
            for batch in self._outbox.clear():
                self._lose(batch, "link_down")

    def echoed(self, message: Data) -> None:
        """Takes the link's round trip from a message of the transceiver's."""
        if message.stamp_ns:
            self._round_trip.add(time.monotonic_ns() - message.stamp_ns - message.held_ns)

    def complain(self, why: str) -> None:
        """Logs once that this transceiver cannot be understood, or says what it may not; each case is counted."""
        if not self._complained:
            self._complained = True
            who = self.number if self.label == str(self.number) else self.label
            logs.get().error("a transceiver's messages cannot be used", transceiver=who, why=why)

    def greet(self) -> None:
        """Says hello to a transceiver that has come. To be called about once a second."""
        there = self.there
        if self._arrivals != self._there.arrivals:
            self._arrivals = self._there.arrivals
            self.greeting.lost()
        if there and self.greeting.due:
            self._hellos += 1
            with suppress(zmq.Again):
                self.dealer.send(self.greeting.hello(self._hellos), zmq.NOBLOCK)
                self.greeting.due = False

    def tell(self, message: Message) -> None:
        """Says something that nobody is harmed by not hearing."""
        with suppress(zmq.Again):
            self.dealer.send(encode(message, None, self.greeting.version), zmq.NOBLOCK)

    def close(self) -> None:
        """Ends the link. What waits is lost, and counted."""
        for batch in self._outbox.clear():
            self._lose(batch, "link_down")
        self._there.close()
        self.dealer.close(linger=0)

    def forget(self) -> None:
        """Removes this transceiver's measurements from the metrics."""
        for histogram in (self._counts.age, self._counts.round_trip):
            histogram.forget(self.label)

    def _give(self, batch: _Batch) -> _Batch | None:
        message, outcomes, came_ns = batch
        try:
            self.dealer.send(message, zmq.NOBLOCK)
        except zmq.Again:
            return batch
        self._age.add(time.time_ns() - came_ns)
        for outcome, count in outcomes.items():
            self._tally[outcome] += count
        return None

    def _lose(self, batch: _Batch, outcome: str) -> None:
        self._tally[outcome] += sum(batch[1].values())
