"""The flows that may come here from another edge behind the same address, and those of this worker that may go there.

Where several edges share one address (ECMP, anycast), the network may bring a caller's packets to another of them from
one moment to the next. So each tells the others the SSRCs of its flows, and the transceiver of each. What a worker is
told so is a hint like any other (``edge/relay/hints.py``): it lets media through to where it may belong, and the
transceiver believes SRTP alone. A worker tells and reads about once a second, and nothing of it is done per datagram.

What is told is said again, and forgotten when it is not. With XDP each SSRC of another edge is for one worker here,
because a core gets its packets; without, every worker must know all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

import zmq

from edge.relay.hints import Hints
from runtime.families import edge as families
from runtime.metrics import Tally
from wire import link
from wire.announcements import FLOWS, MAX_FLOWS, Flows, encode, read
from wire.frames import WireError
from wire.keys import ClusterKeys

__all__ = ["KEPT_S", "MOST_ELSEWHERE", "REPEAT_S", "Elsewhere", "Roaming", "Telling"]

REPEAT_S = 5.0
KEPT_S = 15.0
MOST_ELSEWHERE = 1 << 15
_MESSAGES_A_LOOK = 8  # sent, and read of each edge


class Telling:
    """The SSRCs that the others are still to be told of: each that is new, and all of them every ``REPEAT_S``. Pure."""

    def __init__(self) -> None:
        self._told: dict[int, int] = {}
        self._due: deque[int] = deque()
        self._repeated = float("-inf")

    def due(self, here: dict[int, int], now: float, most: int) -> list[tuple[int, int]]:
        """At most so many of the flows ``here`` (SSRC to transceiver), as the others are to be told of them now."""
        if not self._due and now - self._repeated >= REPEAT_S:
            self._repeated = now
            self._told.clear()
        if not self._due:
            self._due.extend(ssrc for ssrc, transceiver in here.items() if self._told.get(ssrc) != transceiver)
            self._told = dict(here)
        chosen = [self._due.popleft() for _ in range(min(most, len(self._due)))]
        return [(ssrc, here[ssrc]) for ssrc in chosen if ssrc in here]


class Elsewhere:
    """The SSRCs of other edges' flows, each until ``KEPT_S`` after it was last told: at most ``MOST_ELSEWHERE``, and
    then the oldest goes. Pure."""

    def __init__(self, hints: Hints) -> None:
        self._hints = hints
        self._heard: dict[int, float] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._heard)

    def put(self, ssrc: int, transceiver: int, now: float) -> None:
        """Takes what another edge told."""
        self._heard.pop(ssrc, None)
        if len(self._heard) >= MOST_ELSEWHERE:
            self._forget(next(iter(self._heard)))
        self._heard[ssrc] = now
        self._hints.put_elsewhere(ssrc, transceiver)

    def expire(self, now: float) -> None:
        """Forgets what was not told again."""
        for ssrc in [ssrc for ssrc, heard in islice(self._heard.items(), MAX_FLOWS) if now - heard > KEPT_S]:
            self._forget(ssrc)

    def _forget(self, ssrc: int) -> None:
        del self._heard[ssrc]
        self._hints.forget_elsewhere(ssrc)


class Roaming:
    """The worker's part. It tells by way of the endpoint ``to``, where its edge's signaling is, and hears the edges
    ``others`` at theirs; while there are none, it does nothing. ``share`` is (which, of how many): the worker takes
    every SSRC that leaves this remainder."""

    def __init__(
        self,
        context: zmq.Context[Any],
        edge: str,
        hints: Hints,
        keys: ClusterKeys,
        *,
        to: str,
        others: Iterable[str],
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._edge, self._hints = edge, hints
        self._which, self._of = share
        self._telling, self._elsewhere = Telling(), Elsewhere(hints)
        self.counts = Tally(families.WORKER_ROAMING)
        self._context, self._keys, self._to = context, keys, to
        self._voice: Any = None
        self._ears: Any = None
        self._others: set[str] = set()
        self.know(others)

    def know(self, others: Iterable[str]) -> None:
        """Makes these the edges behind the same address, and hears them from now on."""
        now = set(others) if self._to else set()
        if now and self._ears is None:
            self._voice = link.teller(self._context, self._to)
            self._ears = link.subscriber(self._context, FLOWS)
        for gone in self._others - now:
            self._ears.disconnect(gone)
        for new in now - self._others:
            link.hear(self._ears, new, self._keys)
        self._others = now

    def look(self, now: float) -> None:
        """Reads what the others told and tells them; to be called about once a second."""
        if self._ears is None:
            return
        for _ in range(_MESSAGES_A_LOOK * len(self._others)):
            try:
                message = self._ears.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                told = read(message)
            except WireError:
                self.counts["refused"] += 1
                continue
            if isinstance(told, Flows):
                self._take(told, now)
        self._elsewhere.expire(now)
        for _ in range(_MESSAGES_A_LOOK if self._others else 0):
            flows = self._telling.due(self._hints.here, now, MAX_FLOWS)
            if not flows:
                break
            try:
                self._voice.send(encode(Flows(self._edge, flows)), zmq.NOBLOCK)
            except zmq.Again:  # signaling is away; they are told again
                self.counts["not_told"] += len(flows)
                break
            self.counts["told"] += len(flows)

    def close(self) -> None:
        """Ends the connections."""
        for socket in (self._voice, self._ears):
            if socket is not None:
                socket.close(linger=0)

    def _take(self, told: Flows, now: float) -> None:
        for ssrc, transceiver in told.flows:
            if ssrc % self._of == self._which:
                self._elsewhere.put(ssrc, transceiver, now)
                self.counts["taken"] += 1
