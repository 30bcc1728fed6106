"""The transceivers on other hosts as an edge knows them: how each is reached, and whether its way is open. Pure.

A way is opened by an answer to the question that was asked last, and closed when none has come for ``GONE_S``, when
the next hop is not known any more, or when the interface takes no frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge.xdp.ways import Hop

__all__ = ["GONE_S", "OtherHost", "OtherHosts"]

GONE_S: Final = 3.0
_FIND_EVERY_S, _FIND_AGAIN_S = 2.0, 10.0
_LATELY_S: Final = 1.2  # two questions, and a little
# What may be otherwise when the kernel has asked for a neighbour of which it was not sure.
_ASK_FOR: Final = ("no_route", "unanswered")


@dataclass(slots=True)
class OtherHost:
    """A transceiver at ``host``, a name or an address, and a port. ``why`` is the reason, in a word, why its way is not
    open. ``heard`` is when it answered last, and ``looked`` when its next hop was looked up, in seconds."""

    host: tuple[str, int]
    why: str = "no_route"
    hop: Hop | None = None
    asked_ns: int = 0
    heard: float = -GONE_S
    looked: float = -_FIND_EVERY_S
    open: bool = False


class OtherHosts:
    """Those transceivers by id. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._by_id: dict[int, OtherHost] = {}
        self._inherited: dict[int, bool] = {}
        self._until = 0.0

    def inherit(self, is_open: Mapping[int, bool], now: float) -> None:
        """Takes over the ways that a predecessor had. Those whose transceivers are not named within ``GONE_S`` go."""
        self._inherited, self._until = dict(is_open), now + GONE_S

    def items(self) -> list[tuple[int, OtherHost]]:
        """All of them."""
        return list(self._by_id.items())

    def know(self, wanted: Mapping[int, tuple[str, int]], now: float) -> list[int]:
        """Takes note of who there is, and where. Returns those that are there no more, or elsewhere. One that a
        predecessor had open stays so, as if it had answered now."""
        gone = [number for number, each in self._by_id.items() if wanted.get(number) != each.host]
        for number in gone:
            del self._by_id[number]
        for number, host in wanted.items():
            if number not in self._by_id:
                is_open = self._inherited.pop(number, False)
                self._by_id[number] = OtherHost(host, heard=now if is_open else -GONE_S, open=is_open)
        if now > self._until:
            gone += self._inherited
            self._inherited = {}
        return gone

    def find(self, number: int, hop: Hop | None, barred: str) -> bool:
        """Takes note of a next hop, None where there is none, that is of no use for the reason ``barred``. Returns
        whether it is another one than before, which XDP is to be told."""
        each = self._by_id.get(number)
        if each is None:
            return False
        each.why = "no_route" if hop is None else barred or "unanswered"
        hop = None if barred else hop
        is_new, each.hop = hop is not None and hop != each.hop, hop
        return is_new

    def may_change(self, number: int) -> bool:
        """Whether it makes a difference that the kernel asks for its neighbour."""
        each = self._by_id.get(number)
        return each is not None and each.why in _ASK_FOR

    def to_find(self, now: float) -> dict[int, tuple[str, int]]:
        """Those whose next hop is to be looked up now. Where answers show that it is right, that is less often: a look
        costs 10 ms and more of a core that a worker may have."""
        due = {}
        for number, each in self._by_id.items():
            answers = each.open and now - each.heard <= _LATELY_S
            if now - each.looked >= (_FIND_AGAIN_S if answers else _FIND_EVERY_S):
                each.looked, due[number] = now, each.host
        return due

    def closed(self, now: float, there: bool) -> list[tuple[int, str]]:
        """Closes what is not to be used now, and returns it, each with why. ``there`` says that XDP is on its
        interface."""
        closed = []
        for number, each in self._by_id.items():
            if each.open and (each.hop is None or not there or now - each.heard > GONE_S):
                each.open = False
                closed.append((number, each.why))
        return closed

    def at(self, address: bytes) -> tuple[int, Hop] | None:
        """The transceiver, and how it is reached, that has that address (18 bytes)."""
        return next(((n, p.hop) for n, p in self._by_id.items() if p.hop and p.hop.address == address), None)

    def answered(self, number: int, clock_ns: int, now: float) -> bool:
        """Takes an answer to the question of that time. Returns whether the way is to be opened."""
        each = self._by_id.get(number)
        if each is None or each.hop is None or each.asked_ns != clock_ns:
            return False
        each.heard = now
        return not each.open

    def opened(self, number: int) -> None:
        """Notes that the way is open."""
        self._by_id[number].open = True

    def is_open(self, number: int) -> bool:
        """Whether its way is open."""
        return self._by_id[number].open

    def gauges(self) -> dict[tuple[str, ...], float]:
        """1 for each whose way is open, 0 for one that has none, and why."""
        return {(str(n), "" if p.open else p.why): float(p.open) for n, p in self.items()}
