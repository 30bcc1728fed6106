"""The schedule of a worker's rounds: how long datagrams may wait for one another. Pure.

A round costs some dozens of microseconds before it touches the first datagram, so the size of a round decides what each
datagram costs. No two rounds begin within a time that bounds the wait of a datagram; one that comes alone waits for
nothing. Where all media is for agents that hear by the 20 ms clock of their call, it would wait there anyway:
transceivers say so, and then it waits here (``spare_s``). What transceivers send by that clock does not wait.
"""

from __future__ import annotations

from collections import Counter

__all__ = ["LONGEST_S", "Rounds", "Spares"]

LONGEST_S = 0.005  # a datagram waits, whatever a transceiver says

# Rates in datagrams a second, both ways. Below the first (some four calls) nothing waits. Up to the second, calls
# wait for one another as long as a conversation can spare that is passed on as it comes. Beyond the third a core is
# loaded, and every round that is saved is time for datagrams.
_IDLE_HZ, _SPARSE_HZ, _LOADED_HZ = 400, 25_000, 100_000
_SPARSE_S, _USUAL_S, _LOADED_S = 0.0016, 0.0006, 0.001
_WINDOW_S = 0.02


class Rounds:
    """The schedule. Times are in seconds of one monotonic clock. Where ``interruptible``, the wait is over when a
    transceiver says something."""

    __slots__ = ("_began", "_counted", "_least_s", "_since", "interruptible", "spare_s")

    def __init__(self, now: float) -> None:
        self.spare_s = 0.0
        self.interruptible = False
        self._began = self._since = now
        self._counted = 0
        self._least_s = 0.0

    def begin(self, handled: int, now: float) -> None:
        """Begins a round, after one that handled ``handled`` datagrams."""
        self._began = now
        self._counted += handled
        elapsed_s = now - self._since
        if elapsed_s >= _WINDOW_S:
            self._decide(self._counted / elapsed_s)
            self._since, self._counted = now, 0

    def wait(self, now: float) -> float:
        """The time that the next round waits; it does not wait where that is not positive."""
        return self._began + self._least_s - now

    def _decide(self, rate_hz: float) -> None:
        if rate_hz < _IDLE_HZ:
            self._least_s = 0.0
        elif rate_hz < _SPARSE_HZ:
            self._least_s = max(_SPARSE_S, self.spare_s)
        else:
            self._least_s = _USUAL_S if rate_hz < _LOADED_HZ else _LOADED_S
        self.interruptible = self._least_s > _SPARSE_S


class Spares:
    """The times that the media of each flow can wait, as transceivers tell."""

    def __init__(self) -> None:
        self._of: dict[bytes, float] = {}
        self._flows: Counter[float] = Counter()

    def put(self, address: bytes, spare_s: float) -> None:
        """Notes that the flow's media can wait ``spare_s``."""
        self.forget(address)
        self._of[address] = spare_s = min(max(0.0, spare_s), LONGEST_S)
        self._flows[spare_s] += 1

    def forget(self, address: bytes) -> None:
        """Forgets a flow that has ended."""
        spare_s = self._of.pop(address, None)
        if spare_s is not None:
            self._flows[spare_s] -= 1
            if not self._flows[spare_s]:
                del self._flows[spare_s]

    def least(self, flows: int) -> float:
        """The time that the media of all ``flows`` flows can wait. It is 0 while nobody has told it of some, such as
        those that a worker found because its predecessor died."""
        return min(self._flows) if flows and flows == len(self._of) else 0.0
